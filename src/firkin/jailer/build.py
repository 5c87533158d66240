"""Carry out the plan of a jail. What is mounted lives in a mount namespace that ends with the last process in it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from firkin.errors import KernelRefused
from firkin.host import libc
from firkin.jailer.faults import JailerError, os_text, with_path
from firkin.jailer.plan import FOLDERS, Jail, Mount, Node
from firkin.jailer.request import Request

_PRIVATE = 0o700
_CHUNK = 1 << 30
_OLD_ROOT = "old_root"


def copy_program(request: Request) -> None:
    """Make the jail's root folder and put a copy of the program there: no two machines share its pages."""
    try:
        os.makedirs(request.root, exist_ok=True)  # noqa: PTH103 - pathlib costs start-up time
    except OSError as error:
        raise with_path("CreateDir", "Failed to create directory", request.root, error) from error
    target = f"{request.root}/{request.exec_name}"
    with _opened(request.exec_file, os.O_RDONLY) as source:
        mode = stat.S_IMODE(os.fstat(source).st_mode)
        with _opened(target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, mode) as copy:
            _copy(request, source, copy, target)


def enter(jail: Jail) -> None:
    """Move the process into the jail, for good; afterwards its root is the jail's.

    Raises:
        JailerError: in upstream's words where it has them.
    """
    _isolate(jail.request.root)
    for mount in jail.mounts:
        _bind(mount)
    if jail.proc is not None:
        with _place("/proc", is_folder=True):
            pass  # mounted later, in the PID namespace that it is to show
    _pivot()
    for folder in FOLDERS:
        _own_folder(folder, jail.request)
    for node in jail.nodes:
        _make_node(node, jail.request)


def mount_proc(jail: Jail) -> None:
    """Show the processes of the PID namespace that the caller is in."""
    if jail.proc is None:
        return
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    try:
        libc.mount("proc", "/proc", flags, kind="proc", options=jail.proc)
    except KernelRefused as error:
        raise with_path("Mount", "Failed to mount", "/proc", error) from error


def _copy(request: Request, source: int, copy: int, target: str) -> None:
    if os.fstat(copy).st_nlink > 1:
        raise JailerError("HardLink", f"Detected hard link at: {target}", target)
    try:
        os.fchown(copy, request.uid, request.gid)
    except OSError as error:
        raise with_path("ChangeFileOwner", "Failed to change owner for", target, error) from error
    try:
        while os.sendfile(copy, source, None, _CHUNK):
            continue
    except OSError as error:
        text = f"Failed to copy {request.exec_file} to {target}: {os_text(error)}"
        raise JailerError("Copy", text, request.exec_file, target, error) from error


@contextmanager
def _opened(path: str, flags: int, mode: int = 0) -> Iterator[int]:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, mode)
    except OSError as error:
        raise with_path("Open", "Failed to open", path, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _isolate(root: str) -> None:
    with _said("UnshareNewNs", "Failed to unshare into new mount namespace"):
        libc.unshare(libc.CLONE_NEWNS, "cannot make a mount namespace")
    with _said("MountPropagationSlave", "Failed to change the propagation type to slave"):
        libc.mount("", "/", libc.MS_SLAVE | libc.MS_REC)
    # pivot_root wants a mount point of its own.
    with _said("MountBind", "Failed to bind mount the jail root directory"):
        libc.mount(root, root, libc.MS_BIND | libc.MS_REC)
    with _said("SetCurrentDir", "Failed to change current directory"):
        os.chdir(root)


def _pivot() -> None:
    with _said("MkdirOldRoot", "Failed to create the jail root directory before pivoting root"):
        os.mkdir(_OLD_ROOT, 0o600)  # noqa: PTH102 - pathlib costs start-up time
    with _said("PivotRoot", "Failed to pivot root"):
        libc.pivot_root(".", _OLD_ROOT)
    with _said("ChdirNewRoot", "Failed to chdir into chroot directory"):
        os.chdir("/")
    with _said("UmountOldRoot", "Failed to unmount the old jail root"):
        libc.unmount(_OLD_ROOT)
    with _said("RmOldRootDir", "Failed to remove old jail root directory"):
        os.rmdir(_OLD_ROOT)  # noqa: PTH106 - as above


def _bind(mount: Mount) -> None:
    with _place(mount.path, is_folder=mount.is_folder) as empty:
        _mount(mount.path, empty, libc.MS_BIND)
    # Opened anew: the descriptor above stands for what is covered now.
    with _place(mount.path, is_folder=mount.is_folder) as covered:
        _mount(mount.path, covered, libc.MS_REMOUNT | libc.MS_BIND | mount.flags)
        _mount(mount.path, covered, libc.MS_PRIVATE)  # what the host mounts in there later is not for the jail


def _mount(path: str, place: int, flags: int) -> None:
    try:
        libc.mount(path, f"/proc/self/fd/{place}", flags)
    except KernelRefused as error:
        raise with_path("Mount", "Failed to mount", path, error) from error


@contextmanager
def _place(path: str, *, is_folder: bool) -> Iterator[int]:
    """A folder or file below the current folder, made empty if it does not exist, as a descriptor.

    No link is followed on the way: whoever owned this folder before may have laid one that leads out.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    *folders, last = path.lstrip("/").split("/")
    here = os.open(".", flags | os.O_DIRECTORY)
    try:
        for name in [*folders, last] if is_folder else folders:
            _make_folder(here, name)
            here = _step(here, name, flags | os.O_DIRECTORY)
        if not is_folder:
            _make_file(here, last)
            here = _step(here, last, flags)
    except OSError as error:
        os.close(here)
        raise with_path("CreateDir", "Failed to create directory", path, error) from error
    try:
        yield here
    finally:
        os.close(here)


def _make_folder(parent: int, name: str) -> None:
    with contextlib.suppress(FileExistsError):  # the next opening tells whether it is a folder
        os.mkdir(name, dir_fd=parent)
        os.chmod(name, 0o755, dir_fd=parent)  # whatever the umask: the jail's user must get through


def _make_file(parent: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o444, dir_fd=parent))


def _step(here: int, name: str, flags: int) -> int:
    there = os.open(name, flags, dir_fd=here)
    os.close(here)
    return there


def _own_folder(path: str, request: Request) -> None:
    try:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - pathlib costs start-up time
    except OSError as error:
        raise with_path("CreateDir", "Failed to create directory", path, error) from error
    try:
        os.chmod(path, _PRIVATE)  # noqa: PTH101 - as above
    except OSError as error:
        text = f'Failed to change permissions on "{path}": {os_text(error)}'
        raise JailerError("Chmod", text, path, error) from error
    _own(path, request)


def _make_node(node: Node, request: Request) -> None:
    try:
        os.mknod(node.path, stat.S_IFCHR | 0o600, os.makedev(node.major, node.minor))
    except OSError as error:
        failed = JailerError(
            "MknodDev", f"Failed to create {node.path} via mknod inside the jail: {os_text(error)}", error, node.path
        )
        if not node.optional:
            raise failed from error
        warning = f"Warning! Could not create {node.path} device inside jail: {failed}.\n"
        os.write(1, f"{warning}MMDS version 2 will not be available to use.\n".encode())
        return
    _own(node.path, request)


def _own(path: str, request: Request) -> None:
    try:
        os.chown(path, request.uid, request.gid)
    except OSError as error:
        raise with_path("ChangeFileOwner", "Failed to change owner for", path, error) from error


@contextmanager
def _said(variant: str, text: str) -> Iterator[None]:
    """Give a failure upstream's words."""
    try:
        yield
    except (OSError, KernelRefused) as error:
        raise JailerError(variant, f"{text}: {os_text(error)}", error) from error
