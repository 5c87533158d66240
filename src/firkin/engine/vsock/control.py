"""vhost-vsock's own ioctls: which address the guest has, and a switch for both rings at once."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import ClassVar

from firkin.engine.vhost.control import Handlers, Listener, Refused, VhostControl, iow
from firkin.engine.vhost.memory import ProcessMemory
from firkin.engine.vhost.vring import RX, TX

_U64, _INT = struct.Struct("<Q"), struct.Struct("<i")


class VsockControl(VhostControl):
    """The state behind QEMU's vhost-vsock descriptor."""

    def __init__(
        self, memory: ProcessMemory, fetch_fd: Callable[[int], int], listener: Listener, *, guest_cid: int
    ) -> None:
        super().__init__(memory, fetch_fd, listener)
        self.guest_cid = guest_cid
        self.running = False

    def _set_guest_cid(self, argument: int) -> None:
        guest_cid = self.read_one(_U64, argument)
        if not 2 < guest_cid < 0xFFFFFFFF:
            raise Refused(errno.EINVAL)
        self.guest_cid = guest_cid

    def _set_running(self, argument: int) -> None:
        wanted = bool(self.read_one(_INT, argument))
        if wanted and not self.running:
            self.start((RX, TX))
        elif self.running and not wanted:
            self.stop((RX, TX))
        self.running = wanted

    HANDLERS: ClassVar[Handlers] = {
        **VhostControl.HANDLERS,
        iow(0x60, 8): _set_guest_cid,
        iow(0x61, 4): _set_running,
    }
