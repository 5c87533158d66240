"""A seccomp filter that hands one process's ioctls on some descriptors to another to answer (seccomp_unotify(2)).

Needs Linux 5.6 (for pidfd_getfd; the filter itself is older) on x86-64. A filter that the process installs later
stacks on top: of all verdicts the strictest counts, and "notify" is stricter than "allow".
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

_AUDIT_ARCH_X86_64 = 0xC000003E
_NR_IOCTL, _NR_SECCOMP, _NR_PIDFD_GETFD = 16, 317, 438

_SET_MODE_FILTER = 1
_NEW_LISTENER = 1 << 3
_WAIT_KILLABLE_RECV = 1 << 5
_PR_SET_NO_NEW_PRIVS = 38

_RET_ALLOW, _RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
_LD, _JEQ, _AND, _RET = 0x20, 0x15, 0x54, 0x06
_AT_NR, _AT_ARCH, _AT_ARG0, _AT_ARG1 = 0, 4, 16, 24

_NOTIFICATION = struct.Struct("<QIIiIQ6Q")
_RESPONSE = struct.Struct("<QqiI")
_IOCTL_RECV, _IOCTL_SEND, _IOCTL_ID_VALID = 0xC0502100, 0xC0182101, 0x40082102

# An ioctl's type, and which way its argument goes: terminals and plain files share TUN's type, but say no direction.
_KIND_MASK = 0xC000FF00
_KINDS = (0x0000AF00, 0x4000AF00, 0x8000AF00, 0xC000AF00, 0x40005400, 0x80005400)

_libc = ctypes.CDLL(None, use_errno=True)


class Notification(NamedTuple):
    """An ioctl that waits for its answer."""

    id: int
    fd: int
    request: int
    argument: int


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Filter:
    """Traps vhost's and TUN's ioctls on some descriptors; everything else passes.

    Built ahead of the fork, so that the child makes nothing but system calls.
    """

    def __init__(self, fds: Sequence[int]) -> None:
        code = build_filter(fds)
        self._buffer = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.addressof(self._buffer))

    def install(self) -> int:
        """Put the filter on the calling process for good, and return the listener.

        Sets no_new_privs, as the kernel asks of the unprivileged.

        Raises:
            OSError: the kernel has no seccomp listeners, or another one is installed already.
        """
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise _last_error("no_new_privs")
        # Without the second flag (Linux 5.19) a signal makes a half-answered ioctl start over.
        for flags in (_NEW_LISTENER | _WAIT_KILLABLE_RECV, _NEW_LISTENER):
            listener: int = _libc.syscall(_NR_SECCOMP, _SET_MODE_FILTER, flags, ctypes.byref(self._program))
            if listener >= 0:
                return listener
            if ctypes.get_errno() != errno.EINVAL:
                break
        raise _last_error("seccomp listener")


def build_filter(fds: Sequence[int]) -> bytes:
    """The filter in classic BPF. Jumps count the instructions that they skip."""
    kinds, count = len(_KINDS), len(fds)
    steps = [
        (_LD, 0, 0, _AT_ARCH),
        (_JEQ, 0, kinds + count + 6, _AUDIT_ARCH_X86_64),
        (_LD, 0, 0, _AT_NR),
        (_JEQ, 0, kinds + count + 4, _NR_IOCTL),
        (_LD, 0, 0, _AT_ARG1),
        (_AND, 0, 0, _KIND_MASK),
        *((_JEQ, kinds - place, 0, kind) for place, kind in enumerate(_KINDS)),
        (_RET, 0, 0, _RET_ALLOW),
        (_LD, 0, 0, _AT_ARG0),
        *((_JEQ, count - place, 0, fd) for place, fd in enumerate(fds)),
        (_RET, 0, 0, _RET_ALLOW),
        (_RET, 0, 0, _RET_USER_NOTIF),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def send_fd(channel: socket.socket, fd: int) -> None:
    """Pass a descriptor by hand: socket.send_fds imports a module, which a forked child of threads must not."""
    channel.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", fd))])


def receive_fd(channel: socket.socket) -> int | None:
    """The descriptor that the other side sent; None when it went away without."""
    _, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fd: int = struct.unpack_from("=i", data)[0]
            return fd
    return None


def receive(listener: int) -> Notification | None:
    """The next waiting ioctl; None when it was withdrawn, because its thread died or took a signal."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _IOCTL_RECV, buffer)
    except OSError as reason:
        if reason.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
            return None
        raise
    number, _pid, _flags, _nr, _arch, _ip, fd, request, argument, *_ = _NOTIFICATION.unpack(buffer)
    return Notification(number, fd & 0xFFFFFFFF, request & 0xFFFFFFFF, argument)


def respond(listener: int, notification: Notification, error: int) -> None:
    """Let the ioctl return 0, or fail with an errno. Nothing happens if it no longer waits."""
    try:
        fcntl.ioctl(listener, _IOCTL_SEND, _RESPONSE.pack(notification.id, -1 if error else 0, -error, 0))
    except OSError as reason:
        if reason.errno != errno.ENOENT:
            raise


def still_waits(listener: int, notification: Notification) -> bool:
    """Whether the caller is still there: then what was opened by its pid is really its own."""
    try:
        fcntl.ioctl(listener, _IOCTL_ID_VALID, struct.pack("<Q", notification.id))
    except OSError:
        return False
    return True


def fetch_fd(pidfd: int, number: int) -> int:
    """A copy of another process's descriptor (pidfd_getfd(2)).

    Raises:
        OSError: it has no such descriptor, or we may not look into it.
    """
    fd: int = _libc.syscall(_NR_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        raise _last_error("pidfd_getfd")
    return fd


def fetch_eventfd(pidfd: int, number: int) -> int:
    """As fetch_fd, for an eventfd only, made non-blocking so that nobody can make us wait on it.

    Raises:
        OSError: EINVAL when it is something else.
    """
    fd = fetch_fd(pidfd, number)
    if os.readlink(f"/proc/self/fd/{fd}") != "anon_inode:[eventfd]":  # noqa: PTH115 - pathlib costs start-up time
        os.close(fd)
        raise OSError(errno.EINVAL, f"descriptor {number} is not an eventfd")
    os.set_blocking(fd, False)
    return fd


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
