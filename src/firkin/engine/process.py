"""Start QEMU confined, keep its last words, and know how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from firkin.engine.privileges import Privileges
from firkin.errors import ProgramMissing

if TYPE_CHECKING:
    from firkin.engine.twin.control import Control

_TAIL_SIZE = 4096
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C"}


class Ended(NamedTuple):
    """How QEMU ended: an exit code, or minus the signal that killed it; and the end of what it said."""

    code: int
    last_words: str

    def describe(self) -> str:
        how = f"killed by signal {-self.code}" if self.code < 0 else f"exited with {self.code}"
        return f"QEMU {how}" + (f": {self.last_words}" if self.last_words else "")


class Emulator(ABC):
    """A running QEMU. It dies with us, however we die."""

    def __init__(self, pid: int, stderr: int) -> None:
        """Takes over `stderr`. Raises: OSError, if there is no such process."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.stderr = stderr
        self._tail = b""

    def read_stderr(self) -> bytes | None:
        """What QEMU says, of which the end is kept: nothing when it has closed its side, None when it is silent."""
        try:
            data = os.read(self.stderr, _TAIL_SIZE)
        except BlockingIOError:
            return None
        self._tail = (self._tail + data)[-_TAIL_SIZE:]
        return data

    def kill(self) -> None:
        """End it now; `wait` still has to be called."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait(self) -> Ended:
        """Blocks until it has ended, and leaves nothing of it."""
        code = self._end()
        while select.select([self.stderr], [], [], 0)[0] and self.read_stderr():
            pass
        for fd in (self.pidfd, self.stderr):
            os.close(fd)
        return Ended(code, self._tail.decode(errors="replace").strip())

    @abstractmethod
    def _end(self) -> int:
        """Wait for the end, and how it was."""


class Child(Emulator):
    """One that we started."""

    def _end(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


class Copy(Emulator):
    """One that another made for us, with the control socket by which we hold it."""

    def __init__(self, pid: int, stderr: int, control: Control) -> None:
        super().__init__(pid, stderr)
        self._control = control

    def _end(self) -> int:
        select.select([self.pidfd], [], [])
        code = self._control.exit_code()
        return -signal.SIGKILL if code is None else code


def find(program: str) -> str:
    """Absolute path of a program.

    Raises:
        ProgramMissing: with Debian's package as the hint.
    """
    for folder in [*os.environ.get("PATH", os.defpath).split(":"), "/usr/bin", "/usr/local/bin"]:
        path = f"{folder}/{program}"
        if folder.startswith("/") and os.access(path, os.X_OK):
            return path
    raise ProgramMissing(program, package="qemu-system-x86")


def stderr_pipe() -> tuple[int, int]:
    """Our end and QEMU's, which rather loses words than waits for us: we may be waiting for its answer to a command."""
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


def spawn(
    argv: list[str],
    inherit: Collection[int],
    child_setup: Sequence[Callable[[], None]],
    *,
    environment: Mapping[str, str],
    group: int | None = None,
) -> Child:
    """Fork and exec `argv`, which gets the descriptors in `inherit` and no others but a stderr of ours.

    It is put into `group` where it gives up being root, and takes the steps of `child_setup` last.

    Returns at once: the child may still be in `child_setup`, or fail to exec (then it exits with 127).
    """
    privileges = Privileges(group)
    stderr, theirs = stderr_pipe()
    pid = os.fork()
    if pid == 0:
        _become(argv, inherit, theirs, privileges, child_setup, {**_ENVIRONMENT, **environment})
    os.close(theirs)
    return Child(pid, stderr)


def _become(
    argv: list[str],
    inherit: Collection[int],
    stderr: int,
    privileges: Privileges,
    child_setup: Sequence[Callable[[], None]],
    environment: Mapping[str, str],
) -> NoReturn:
    try:
        # A session of its own: no terminal to push characters into, and none of its signals.
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _redirect(stderr)
        privileges.drop()
        for step in child_setup:
            step()  # may still speak to its parent on a descriptor of its own
        close_all_but(inherit)
        os.execve(argv[0], argv, environment)
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not run on as a second engine
        os.write(2, f"cannot become {argv[0]}: {error}\n".encode())
    os._exit(127)


def _redirect(stderr: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, nothing), (1, nothing), (2, stderr)):
        os.dup2(source, target)


def close_all_but(inherit: Collection[int]) -> None:
    """Close every descriptor but 0, 1, 2 and these, which outlive an exec."""
    for fd in inherit:
        os.set_inheritable(fd, True)
    # Not closerange: without close_range(2) it tries each number up to a limit that may be a thousand million.
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, *inherit}:  # noqa: PTH208 - start-up
        with contextlib.suppress(OSError):
            os.close(fd)
