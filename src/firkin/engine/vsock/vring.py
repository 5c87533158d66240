"""What QEMU set for one queue of its vhost device: size, addresses, position and doorbells."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field

from firkin.engine.vsock.ring import RingLayout, SplitRing

RX, TX = 0, 1  # as the guest sees them: the device writes RX and reads TX
NO_FD = -1


@dataclass(slots=True)
class Vring:
    """What QEMU set for one queue. `ring` exists while the device runs."""

    size: int = 1
    layout: tuple[int, int, int] = (0, 0, 0)
    base: int = 0
    fds: dict[str, int] = field(default_factory=lambda: {"kick": NO_FD, "call": NO_FD, "error": NO_FD})
    ring: SplitRing | None = None

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
