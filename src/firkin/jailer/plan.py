"""A jail as a value: what is copied, mounted and made, and what runs in it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from firkin.host.libc import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from firkin.jailer.cgroups import Step
from firkin.jailer.faults import JailerError
from firkin.jailer.request import Request
from firkin.jailer.runtime import Runtime

FOLDERS = ("/", "/dev", "/dev/net", "/run")
TUN, KVM, URANDOM = ("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9)
_MISC_MAJOR = 10
_READ_ONLY = MS_RDONLY | MS_NOSUID


class Mount(NamedTuple):
    """A folder or file of the host, under the same path in the jail; `flags` restrict it."""

    path: str
    flags: int
    is_folder: bool = True


class Node(NamedTuple):
    """A character device that belongs to the jail's user."""

    path: str
    major: int
    minor: int
    optional: bool = False


class Jail(NamedTuple):
    """Everything that is decided before anything is done. `proc` are options for a /proc of its own, None for none."""

    request: Request
    cgroups: tuple[Step, ...]
    mounts: tuple[Mount, ...]
    nodes: tuple[Node, ...]
    proc: str | None

    @property
    def program(self) -> str:
        """The copy of the exec file, as it sees itself."""
        return f"/{self.request.exec_name}"


def plan(request: Request, runtime: Runtime, cgroups: tuple[Step, ...], *, misc: str, release: str) -> Jail:
    """The jail; `misc` is the text of /proc/misc, `release` the kernel's.

    Raises:
        JailerError: the runtime would show the jails.
    """
    for folder in runtime.folders:
        if f"{request.base}/".startswith(f"{folder}/"):
            text = (
                f"{request.base} is within {folder}, which every jail of a script can read: choose another base folder"
            )
            raise JailerError("BaseInRuntime", text, request.base, folder)
    return Jail(
        request,
        cgroups,
        mounts=_mounts(runtime),
        nodes=(Node(*TUN), Node(*KVM), Node(*URANDOM, optional=True), *_userfaultfd(misc)),
        proc=_proc_options(release) if runtime.folders else None,
    )


def command(request: Request, *, start_us: int, cpu_us: int, parent_cpu_us: int) -> list[str]:
    """The program's argv."""
    return [
        f"/{request.exec_name}",
        *("--id", request.id),
        *("--start-time-us", str(start_us)),
        *("--start-time-cpu-us", str(cpu_us)),
        *("--parent-cpu-time-us", str(parent_cpu_us)),
        *request.extra,
    ]


def _mounts(runtime: Runtime) -> tuple[Mount, ...]:
    if not runtime.folders:
        return ()
    return (
        *(Mount(path, _READ_ONLY | MS_NODEV) for path in runtime.folders),
        *(Mount(path, _READ_ONLY | MS_NODEV | MS_NOEXEC, is_folder=False) for path in runtime.files),
        Mount("/dev/null", _READ_ONLY | MS_NOEXEC, is_folder=False),  # read-only is its place, not what it takes
    )


def _userfaultfd(misc: str) -> tuple[Node, ...]:
    """Its number is given out at boot: /proc/misc has it, if the host has the device."""
    for line in misc.splitlines():
        number, _, name = line.strip().partition(" ")
        if name == "userfaultfd" and number.isdigit():
            return (Node("/dev/userfaultfd", _MISC_MAJOR, int(number)),)
    return ()


def _proc_options(release: str) -> str:
    """Show the jail's user its own processes only.

    Before Linux 5.8 this option belonged to the PID namespace, and so would change the host's own /proc.
    """
    major, minor = (int("".join(filter(str.isdigit, word)) or 0) for word in f"{release}.0".split(".")[:2])
    return "hidepid=2" if (major, minor) >= (5, 8) else ""
