"""vhost-net's own ioctl: a ring begins when QEMU gives it a tap, and ends when it takes the tap away."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import ClassVar, Protocol

from firkin.engine.vhost.control import Handlers, Listener, VhostControl, iow
from firkin.engine.vhost.memory import Memory, ProcessMemory, RingBroken

MTU = 1 << 3
MERGEABLE = 1 << 15

_INDEX_FD = struct.Struct("<Ii")


class Tap(Protocol):
    """Who answers what QEMU asks of the tap, and does what it wants of it."""

    def answer(self, request: int, argument: int, memory: Memory) -> int:
        """0, or an errno. Raises: RingBroken, for a bad pointer."""


class NetListener(Listener, Protocol):
    def disable(self, reason: str) -> None:
        """The guest set something up that cannot be served."""


class NetControl(VhostControl):
    """The state behind QEMU's vhost-net descriptor."""

    FEATURES = VhostControl.FEATURES | MTU | MERGEABLE

    def __init__(self, memory: ProcessMemory, fetch_fd: Callable[[int], int], listener: NetListener, tap: Tap) -> None:
        super().__init__(memory, fetch_fd, listener)
        self._net = listener
        self._tap = tap

    def answer(self, request: int, argument: int) -> int:
        """As for every device, but never a refusal of what the guest chose.

        QEMU would go on without us then, with a guest whose frames go nowhere. What it asks of the tap is answered
        as the tap does: QEMU tries what it can do.
        """
        if request not in self.HANDLERS:
            return self._answer_tun(request, argument)
        if error := super().answer(request, argument):
            self._net.disable(f"vhost request {request:#x} failed with {error}")
        return 0

    def _answer_tun(self, request: int, argument: int) -> int:
        try:
            return self._tap.answer(request, argument, self.memory)
        except RingBroken:
            return errno.EFAULT

    def _set_backend(self, argument: int) -> None:
        index, fd = self.read(_INDEX_FD, argument)
        vring = self.vring(index)
        if fd < 0 and vring.ring is not None:
            self.stop((index,))
        elif fd >= 0 and vring.ring is None:
            try:
                self.start((index,))
            except RingBroken as reason:
                self._net.disable(str(reason))

    HANDLERS: ClassVar[Handlers] = {**VhostControl.HANDLERS, iow(0x30, 8): _set_backend}
