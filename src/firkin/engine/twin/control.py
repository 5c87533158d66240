"""Our end of a QEMU's control socket (twin/src/serve.c): it asks for a copy, tells the exit code, and ends QEMU."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Mapping

from firkin.errors import EngineError

PATIENCE_S = 5.0
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_CODE = struct.Struct("i")


class NoTwin(EngineError):
    """QEMU cannot be copied, now or ever; the original goes on."""


class Control:
    """QEMU lives for as long as somebody has this end open."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    @classmethod
    def pair(cls) -> tuple[Control, socket.socket]:
        """Ours, and the one that QEMU is to have."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._socket.fileno()

    def copy(self, control: Control, places: Mapping[int, int]) -> int:
        """Copy the process: the copy's pid. `places` maps numbers in it to our descriptors, of `control` its end too.

        A process that runs begets one that sleeps, and one that sleeps begets ones that run.

        Raises:
            NoTwin: it cannot, or did not in time.
        """
        text = struct.pack(f"{1 + len(places)}i", os.getpid(), *places)
        rights = struct.pack(f"{len(places)}i", *places.values())
        try:
            self._socket.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as error:
            raise NoTwin(f"QEMU cannot be asked for a copy: {error}") from error
        return control.greeting()

    def greeting(self) -> int:
        """Wait for a copy's first word: its pid, by the kernel's. Raises: NoTwin, if it does not come in time."""
        if select.select([self._socket], [], [], PATIENCE_S)[0]:
            word, parts, _, _ = self._socket.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
            for level, kind, data in parts:
                if word and (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid: int = _CREDENTIALS.unpack(data)[0]
                    return pid
        raise NoTwin("QEMU makes no copy of itself")

    def exit_code(self) -> int | None:
        """What QEMU ended with; None while it runs, and if it was killed."""
        try:
            word = self._socket.recv(_CODE.size, socket.MSG_DONTWAIT)
        except OSError:
            return None
        return _CODE.unpack(word)[0] if len(word) == _CODE.size else None

    def close(self) -> None:
        self._socket.close()
