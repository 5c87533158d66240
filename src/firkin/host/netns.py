"""Named network namespaces, the way iproute2 keeps them: `ip netns` sees ours and we see its.

A name is a file in /run/netns with a namespace mounted over it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from firkin.errors import KernelRefused, NotFound
from firkin.host import libc

T = TypeVar("T")

FOLDER = Path("/run/netns")
OWN = Path("/proc/thread-self/ns/net")


def exists(name: str) -> bool:
    """Whether the name stands for a namespace; a file that nothing is mounted on is a leftover."""
    try:
        return (FOLDER / name).stat().st_dev == OWN.stat().st_dev
    except FileNotFoundError:
        return False


def names() -> list[str]:
    """Every named namespace."""
    return sorted(path.name for path in FOLDER.iterdir() if exists(path.name)) if FOLDER.is_dir() else []


def create(name: str) -> None:
    """Make the namespace, with its loopback up; having it already is fine.

    Raises:
        KernelRefused: not allowed, or out of resources.
    """
    with _folder_locked():
        _share_folder()
        if exists(name):
            return
        path = FOLDER / name
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0))
        try:
            _in_thread(lambda: _pin_new(path))
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def delete(name: str) -> None:
    """Take the name away; the namespace ends with its last process. A name that is absent is fine."""
    path = FOLDER / name
    if not path.exists():
        return
    with _folder_locked():
        while exists(name):
            libc.unmount(str(path))
        path.unlink(missing_ok=True)


def run_in(where: str | int, act: Callable[[], T]) -> T:
    """Call `act` in a namespace, given by name or file descriptor, and answer its value or raise its error.

    It runs in a thread of its own, so the caller's namespace never changes. A child process that `act` starts inherits
    the namespace, but must not ask for PR_SET_PDEATHSIG: its parent is the thread, which ends first.

    Raises:
        NotFound: no namespace of that name.
    """

    def inside() -> T:
        enter(where)
        return act()

    return _in_thread(inside)


def inside(name: str | None, act: Callable[[], T]) -> T:
    """`act` in the namespace of that name, or right here if there is none to go to."""
    return act() if name is None else run_in(name, act)


def is_current(name: str) -> bool:
    """Whether the calling thread is in the namespace of that name."""
    try:
        return (FOLDER / name).stat().st_ino == OWN.stat().st_ino
    except FileNotFoundError:
        return False


def enter(where: str | int) -> None:
    """Move the calling thread for good; meant for a process that is about to exec.

    Raises:
        NotFound: no namespace of that name.
    """
    if isinstance(where, int):
        libc.setns(where, f"network namespace (fd {where})")
        return
    with opened(where) as fd:
        libc.setns(fd, f"network namespace {where!r}")


@contextmanager
def opened(name: str | None) -> Iterator[int]:
    """A descriptor that stands for the namespace of that name, or for the calling thread's own.

    Raises:
        NotFound: no namespace of that name.
    """
    try:
        fd = os.open(OWN if name is None else FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound("network namespace", str(name), hint="ip netns list") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _in_thread(act: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def carry() -> None:
        try:
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=carry, name="netns")
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.join()  # an undo must not race with what it undoes
        raise
    if errors:
        raise errors[0]
    return results[0]


def _pin_new(path: Path) -> None:
    from firkin.host.netlink import Rtnl

    libc.unshare_net()
    with Rtnl() as rtnl:
        rtnl.change("lo", up=True)
    libc.mount(str(OWN), str(path), libc.MS_BIND)


@contextmanager
def _folder_locked() -> Iterator[None]:
    """The lock that iproute2 takes too."""
    FOLDER.mkdir(parents=True, exist_ok=True, mode=0o755)
    fd = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _share_folder() -> None:
    """Let mounts in the folder, and their ends, reach other mount namespaces."""
    try:
        libc.mount("", str(FOLDER), libc.MS_SHARED | libc.MS_REC)
    except KernelRefused as error:
        if error.errno != errno.EINVAL:  # not a mount point yet
            raise
        libc.mount(str(FOLDER), str(FOLDER), libc.MS_BIND | libc.MS_REC)
        libc.mount("", str(FOLDER), libc.MS_SHARED | libc.MS_REC)
