"""What QEMU set for one queue of its vhost device: size, addresses, position and doorbells."""

from __future__ import annotations

import os
from contextlib import suppress

from firkin.engine.vhost.ring import RingLayout, SplitRing

RX, TX = 0, 1  # as the guest sees them: the device writes RX and reads TX
NO_FD = -1


class Vring:
    """One queue. `ring` exists while the device runs."""

    __slots__ = ("base", "fds", "layout", "ring", "size")

    def __init__(self) -> None:
        self.size = 1
        self.layout = (0, 0, 0)  # of descriptors, available and used ring, in QEMU's address space
        self.base = 0
        self.fds = {"kick": NO_FD, "call": NO_FD}
        self.ring: SplitRing | None = None

    def ring_layout(self) -> RingLayout:
        return RingLayout(self.size, *self.layout)

    def next_avail(self) -> int:
        return self.base if self.ring is None else self.ring.next_avail

    def signal(self, name: str) -> None:
        """Ring a doorbell of QEMU's, if it gave one."""
        fd = self.fds[name]
        if fd == NO_FD:
            return
        with suppress(BlockingIOError):  # the counter is full: QEMU has unseen rings enough
            os.eventfd_write(fd, 1)
