"""System calls that Python 3.11 does not offer, through the C library. ctypes is loaded on first use: it costs time."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from firkin.errors import KernelRefused

if TYPE_CHECKING:
    import ctypes

CLONE_NEWNET = 0x40000000  # linux/sched.h
MS_BIND, MS_REC, MS_SHARED = 4096, 16384, 1 << 20  # sys/mount.h
MNT_DETACH = 2


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
    _check(_library().unshare(CLONE_NEWNET), "cannot make a network namespace", "run as root")


def mount(source: str, target: str, flags: int) -> None:
    """mount(2) without a filesystem type or options."""
    result = _library().mount(os.fsencode(source), os.fsencode(target), b"none", flags, None)
    _check(result, f"cannot mount {source} on {target}", "run as root")


def unmount(target: str) -> None:
    """Detach a mount at once; it goes away when its last user does."""
    _check(_library().umount2(os.fsencode(target), MNT_DETACH), f"cannot unmount {target}")
