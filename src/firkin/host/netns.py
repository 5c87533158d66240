"""Named network namespaces, as ip-netns(8) makes and sees them. The calling thread never changes its own."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from firkin.errors import KernelRefused

FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 1 << 20
MNT_DETACH = 2

T = TypeVar("T")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise KernelRefused(what, code, hint="needs root: sudo firkin ..." if os.geteuid() else "")


def exists(name: str) -> bool:
    """Whether a namespace of that name is there; a plain file left by a killed process is none."""
    try:
        return (FOLDER / name).stat().st_dev != FOLDER.stat().st_dev
    except FileNotFoundError:
        return False


def create(name: str) -> None:
    """Make a namespace with its loopback up, unless it exists."""
    if exists(name):
        return
    _prepare_folder()
    (FOLDER / name).touch()

    def unshare_and_pin() -> None:
        _check(_libc().unshare(CLONE_NEWNET), f"create namespace {name}")
        source = b"/proc/thread-self/ns/net"
        _check(_libc().mount(source, os.fsencode(FOLDER / name), b"none", MS_BIND, None), f"pin namespace {name}")
        from firkin.host.netlink import Rtnl

        with Rtnl() as rtnl:
            rtnl.up("lo")

    _in_thread(unshare_and_pin)


def _prepare_folder() -> None:
    """Make /run/netns a shared mount, so that every mount namespace sees names come and go (as iproute2 does)."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = os.fsencode(FOLDER)
    if _libc().mount(b"", target, b"none", MS_SHARED | MS_REC, None) != 0:
        _check(_libc().mount(target, target, b"none", MS_BIND | MS_REC, None), "prepare /run/netns")
        _check(_libc().mount(b"", target, b"none", MS_SHARED | MS_REC, None), "prepare /run/netns")


def delete(name: str) -> None:
    """Let go of a namespace; it and its devices end with their last process. Silent if there is none."""
    path = FOLDER / name
    if exists(name):
        _check(_libc().umount2(os.fsencode(path), MNT_DETACH), f"delete namespace {name}")
    path.unlink(missing_ok=True)


def enter(name: str) -> None:
    """Move the calling thread, and what it execs, into a namespace for good."""
    try:
        fd = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelRefused(f"enter namespace {name}", error.errno or 0, hint="ip netns") from error
    try:
        _check(_libc().setns(fd, CLONE_NEWNET), f"enter namespace {name}")
    finally:
        os.close(fd)


def run_in(name: str, act: Callable[[], T]) -> T:
    """Call `act` in a namespace, in a thread that lives for this; processes that it starts inherit the namespace."""

    def entered() -> T:
        enter(name)
        return act()

    return _in_thread(entered)


def _in_thread(act: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
