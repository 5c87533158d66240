"""Copies of another process's descriptors (Linux 5.6)."""

from __future__ import annotations

import ctypes
import errno
import os

_NR_PIDFD_GETFD = 438

_libc = ctypes.CDLL(None, use_errno=True)


def fetch_fd(pidfd: int, number: int) -> int:
    """A copy of another process's descriptor (pidfd_getfd(2)).

    Raises:
        OSError: it has no such descriptor, or we may not look into it.
    """
    fd: int = _libc.syscall(_NR_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"pidfd_getfd: {os.strerror(error)}")
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
