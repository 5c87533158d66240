"""System calls that Python 3.11 does not offer, through the C library. ctypes is loaded on first use: it costs time."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from firkin.errors import KernelRefused

if TYPE_CHECKING:
    import ctypes

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x20000000, 0x40000000  # linux/sched.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32  # sys/mount.h
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2
IN_MODIFY, IN_MOVED_TO, IN_CREATE = 2, 128, 256  # sys/inotify.h
SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h


@cache
def _library() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str, hint: str = "") -> None:
    import ctypes

    if result != 0:
        raise KernelRefused(what, ctypes.get_errno(), hint=hint)


def setns(fd: int, what: str) -> None:
    """Move the calling thread into the network namespace that `fd` stands for; `what` names it in the error."""
    _check(_library().setns(fd, CLONE_NEWNET), f"cannot enter {what}", "run as root")


def unshare_net() -> None:
    """Move the calling thread into a network namespace of its own."""
    unshare(CLONE_NEWNET, "cannot make a network namespace")


def unshare(flags: int, what: str) -> None:
    """Leave the namespaces that `flags` name for new ones; CLONE_NEWPID moves only children made afterwards."""
    _check(_library().unshare(flags), what, "run as root")


def mount(source: str, target: str, flags: int, *, kind: str = "none", options: str = "") -> None:
    """mount(2); `kind` is the filesystem type, where one is made and not moved or changed."""
    data = options.encode() or None
    result = _library().mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, data)
    _check(result, f"cannot mount {source} on {target}", "run as root")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` this mount namespace's root; the old one is found at `put_old`, below it."""
    _check(_library().pivot_root(os.fsencode(new_root), os.fsencode(put_old)), f"cannot make {new_root} the root")


def unmount(target: str) -> None:
    """Detach a mount at once; it goes away when its last user does."""
    _check(_library().umount2(os.fsencode(target), MNT_DETACH), f"cannot unmount {target}")


def inotify(path: str, events: int) -> int:
    """A descriptor, not blocking, that becomes readable when one of `events` happens at `path`."""
    import ctypes

    fd: int = _library().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise KernelRefused(f"cannot watch {path}", ctypes.get_errno())
    if _library().inotify_add_watch(fd, os.fsencode(path), events) < 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise KernelRefused(f"cannot watch {path}", number)
    return fd


def punch_hole(fd: int, end: int) -> None:
    """Give the disk back what a file holds before `end`; it reads as zeros then, and the file stays as long."""
    import ctypes

    flags = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    result = _library().fallocate(fd, flags, ctypes.c_int64(0), ctypes.c_int64(end))
    _check(result, "cannot punch a hole into a file")


def start_writing(fd: int, at: int, count: int) -> None:
    """Have the disk begin with a part of a file, so that a later fsync has less to wait for. Promises nothing."""
    import ctypes

    _library().sync_file_range(fd, ctypes.c_int64(at), ctypes.c_int64(count), SYNC_FILE_RANGE_WRITE)
