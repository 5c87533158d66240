"""QEMU's ioctls on our devices, one at a time, as its library (twin/src/calls.c) passes them on."""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

_CALL = struct.Struct("<iIQ")
_ANSWER = struct.Struct("<i")


class Call(NamedTuple):
    """An ioctl that waits for its answer; `fd` by its number in QEMU, `argument` an address there or a value."""

    fd: int
    request: int
    argument: int


def receive(channel: socket.socket) -> Call | None:
    """The next waiting ioctl; None when QEMU has ended. Raises: OSError, for what no library of ours says."""
    try:
        data = channel.recv(_CALL.size + 1)
    except ConnectionError:
        return None
    if not data:
        return None
    if len(data) != _CALL.size:
        raise OSError(errno.EPROTO, "QEMU speaks another language")
    return Call(*_CALL.unpack(data))


def respond(channel: socket.socket, error: int) -> None:
    """Let the ioctl return 0, or fail with an errno. Nothing happens if nobody waits any more."""
    try:
        channel.send(_ANSWER.pack(error), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return  # QEMU is ending, and whoever waits for that hears of it
