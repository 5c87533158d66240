"""From the finished jail to the program in it: network, limits, session, PID namespace, user, exec."""

from __future__ import annotations

import os
import resource
import signal
import time
from typing import NamedTuple, NoReturn

from firkin.errors import KernelRefused
from firkin.host import libc
from firkin.jailer import build
from firkin.jailer.faults import JailerError, os_text, with_path
from firkin.jailer.plan import Jail, command
from firkin.jailer.request import Limits


class Clock(NamedTuple):
    """When the jailer began, on both clocks that the program is told of."""

    start_us: int
    cpu_us: int

    @classmethod
    def now(cls) -> Clock:
        return cls(time.monotonic_ns() // 1000, cpu_us())


def cpu_us() -> int:
    """What this process has used of a processor."""
    return time.process_time_ns() // 1000


def join_netns(path: str) -> None:
    """Move into the network namespace behind a path."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise with_path("FileOpen", "Failed to open file", path, error) from error
    try:
        libc.setns(fd, path)
    except KernelRefused as error:
        text = f"Failed to join network namespace: netns: {os_text(error)}"
        raise JailerError("SetNetNs", text, error) from error
    finally:
        os.close(fd)


def set_limits(limits: Limits) -> None:
    """Soft and hard, for this process and what it becomes."""
    if limits.fsize is not None:
        _set_limit(resource.RLIMIT_FSIZE, limits.fsize, "size of file")
    _set_limit(resource.RLIMIT_NOFILE, limits.no_file, "number of file descriptors")


def open_null() -> int:
    """/dev/null of the host: a jail for a static executable has none."""
    try:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise JailerError("OpenDevNull", f"Failed to open /dev/null: {os_text(error)}", error) from error


def daemonize(null: int) -> int:
    """Go on as a grandchild in a session of its own, which cannot get a terminal; the CPU time used on the way."""
    _leave_to_child()
    try:
        os.setsid()
    except OSError as error:
        raise JailerError("SetSid", f"Failed to daemonize: setsid: {os_text(error)}", error) from error
    used_us = cpu_us()
    _leave_to_child()
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return used_us + cpu_us()


def become(jail: Jail, clock: Clock, parent_cpu_us: int) -> NoReturn:
    """Write the pid file, here or for a child in a new PID namespace, and become the program."""
    if jail.request.new_pid_ns:
        _enter_pid_namespace(jail)
    else:
        _save_pid(jail, os.getpid())
    build.mount_proc(jail)
    argv = command(jail.request, start_us=clock.start_us, cpu_us=cpu_us(), parent_cpu_us=parent_cpu_us)
    try:
        _exec(jail, argv)
    except OSError as error:
        raise JailerError("Exec", f"Failed to exec into Firecracker: {os_text(error)}", error) from error


def _exec(jail: Jail, argv: list[str]) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and an exec would not change that
    os.setgroups([])
    os.setresgid(jail.request.gid, jail.request.gid, jail.request.gid)
    os.setresuid(jail.request.uid, jail.request.uid, jail.request.uid)
    os.execve(argv[0], argv, {})


def _enter_pid_namespace(jail: Jail) -> None:
    """Return as the namespace's first process; the parent leaves its pid and ends."""
    # When the leader of a session ends, its children get SIGHUP: the new process must not be one of them.
    leads_session = os.getsid(0) == os.getpid()
    try:
        libc.unshare(libc.CLONE_NEWPID, "cannot make a PID namespace")
        child = os.fork()
    except (OSError, KernelRefused) as error:
        raise JailerError("Clone", f"Failed cloning into a new child process: {os_text(error)}", error) from error
    if child != 0:
        _save_pid(jail, child)
        os._exit(0)
    if leads_session:
        os.setsid()


def _save_pid(jail: Jail, pid: int) -> None:
    path = f"{jail.program}.pid"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise with_path("FileOpen", "Failed to open file", path, error) from error
    try:
        os.write(fd, str(pid).encode())
    except OSError as error:
        raise with_path("Write", "Failed to write to", path, error) from error
    finally:
        os.close(fd)


def _leave_to_child() -> None:
    try:
        child = os.fork()
    except OSError as error:
        raise JailerError("Daemonize", f"Failed to daemonize: {os_text(error)}", error) from error
    if child != 0:
        os._exit(0)


def _set_limit(which: int, value: int, name: str) -> None:
    # Python's numbers for limits are signed; the largest one of the kernel's means that there is none.
    number = value if value < 1 << 63 else resource.RLIM_INFINITY
    try:
        resource.setrlimit(which, (number, number))
    except (OSError, ValueError) as error:
        raise JailerError("Setrlimit", f"Failed to set limit for resource: {name}", name) from error
