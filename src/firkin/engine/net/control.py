"""vhost-net's own ioctl: a ring begins when QEMU gives it a tap, and ends when it takes the tap away."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import ClassVar, Protocol

from firkin.engine.vhost.control import Handlers, Listener, VhostControl, iow
from firkin.engine.vhost.memory import ProcessMemory, RingBroken

MTU = 1 << 3
MERGEABLE = 1 << 15

_INDEX_FD = struct.Struct("<Ii")
_ANSWERED = 0


class NetListener(Listener, Protocol):
    def disable(self, reason: str) -> None:
        """The guest set something up that cannot be served."""


class NetControl(VhostControl):
    """The state behind QEMU's vhost-net descriptor."""

    FEATURES = VhostControl.FEATURES | MTU | MERGEABLE

    def __init__(self, memory: ProcessMemory, fetch_fd: Callable[[int], int], listener: NetListener) -> None:
        super().__init__(memory, fetch_fd, listener)
        self._net = listener

    def answer(self, request: int, argument: int) -> int:
        """As for every device, but never a refusal of what the guest chose.

        QEMU would go on without us then, and so would a guest that wants to get around its limits.
        """
        error = super().answer(request, argument)
        if error and request in self.HANDLERS:
            self._net.disable(f"vhost request {request:#x} failed with {error}")
            return _ANSWERED
        return error

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
