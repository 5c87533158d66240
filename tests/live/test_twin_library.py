"""The library that copies processes, on a program whose threads wait, work and hold locks as QEMU's do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from firkin.engine.twin.control import Control, NoTwin
from firkin.engine.twin.library import Library
from firkin.engine.twin.record import Numbers
from firkin.host.process import ProcessRef
from firkin.host.wait import wait_until

SOURCE = Path(__file__).with_name("twin_subject.c")
Ask = Callable[[str], int]


class Subject:
    """The program, or a copy of it that is awake."""

    def __init__(self, control: Control, commands: socket.socket, pid: int) -> None:
        self.control = control
        self.pid = pid
        self._commands = commands
        commands.settimeout(20)

    def ask(self, word: str) -> int:
        self._commands.send(word.encode())
        return int(self._commands.recv(32))

    def tell(self, word: str) -> None:
        self._commands.send(word.encode())

    def close(self) -> None:
        self._commands.close()
        self.control.close()


class Family:
    """The original, and how copies of it are made."""

    def __init__(self, program: Path, stack: ExitStack) -> None:
        self._stack = stack
        control, theirs = Control.pair()
        commands, their_commands = self._pair()
        library = Library()
        self._numbers = Numbers(their_commands.fileno(), -1, theirs.fileno(), -1, [])
        with theirs, their_commands:
            self.process = subprocess.Popen(
                [program, str(self._numbers.monitor)],
                env=library.environment(self._numbers),
                pass_fds=(library.fd, theirs.fileno(), their_commands.fileno()),
            )
        library.close()
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)
        self.original = Subject(control, commands, self.process.pid)
        stack.callback(self.original.close)

    def asleep(self, of: Control) -> tuple[Control, int]:
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            return self._copy(of, nothing)
        finally:
            os.close(nothing)

    def awake(self, sleeper: Control) -> Subject:
        ours, theirs = self._pair()
        with theirs:
            control, pid = self._copy(sleeper, theirs.fileno())
        subject = Subject(control, ours, pid)
        self._stack.callback(subject.close)
        return subject

    def _copy(self, of: Control, commands: int) -> tuple[Control, int]:
        control, theirs = Control.pair()
        self._stack.callback(control.close)
        with theirs:
            places = {self._numbers.control: theirs.fileno(), self._numbers.monitor: commands}
            return control, of.copy(control, places)

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("twin") / "subject"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-return-type", "-o", path, SOURCE, "-lpthread"], check=True
    )
    return path


@pytest.fixture
def family(program: Path) -> Iterator[Family]:
    with ExitStack() as stack:
        yield Family(program, stack)


def test_everything_goes_on_in_a_copy(family: Family) -> None:
    assert family.original.ask("ring") == 17
    sleeper, _ = family.asleep(family.original.control)
    copy = family.awake(sleeper)
    for one in (copy, family.original):
        assert one.ask("mine") == 5  # thread-local storage of the main thread
        assert one.ask("ring") == 34  # a thread that waits for a condition
        assert one.ask("turned") == 1  # one that was in the middle of something
        assert one.ask("kick") == 23  # a signal reaches the one that was meant
        assert one.ask("again") == 0  # a lock is its owner's
        assert one.ask("made") == 1  # threads are made and joined


def test_copies_share_nothing_that_one_could_change(family: Family) -> None:
    sleeper, _ = family.asleep(family.original.control)
    one, other = family.awake(sleeper), family.awake(sleeper)
    assert one.ask("event") == 8
    assert wait_until(lambda: one.ask("woken") == 100, timeout_s=5)
    assert other.ask("woken") == family.original.ask("woken") == 0
    assert other.ask("ring") == 17
    assert one.ask("ring") == 117


def test_a_sleeper_stays_as_it_was(family: Family) -> None:
    family.original.ask("ring")
    sleeper, _ = family.asleep(family.original.control)
    for _ in range(3):
        family.original.ask("ring")
    assert family.awake(sleeper).ask("woken") == 17


def test_a_copy_of_a_copy_of_a_copy(family: Family) -> None:
    latest = family.original
    for generation in range(1, 6):
        sleeper, _ = family.asleep(latest.control)
        latest = family.awake(sleeper)
        assert latest.ask("ring") == 17 * generation
        assert (latest.ask("kick"), latest.ask("again"), latest.ask("made")) == (23, 0, 1)


def test_many_copies_of_a_busy_program(family: Family) -> None:
    sleeper, _ = family.asleep(family.original.control)
    copies = [family.awake(sleeper) for _ in range(30)]
    assert [copy.ask("ring") for copy in copies] == [17] * 30


def test_a_copy_ends_when_nobody_holds_it_and_tells_how_it_ended(family: Family) -> None:
    sleeper, sleeping = family.asleep(family.original.control)
    dropped, ended, killed = (family.awake(sleeper) for _ in range(3))
    assert ended.control.exit_code() is None
    ended.tell("exit")
    dropped.control.close()
    os.kill(killed.pid, signal.SIGKILL)
    assert wait_until(lambda: all(gone(each.pid) for each in (dropped, ended, killed)), timeout_s=5)
    assert (ended.control.exit_code(), killed.control.exit_code()) == (42, None)
    sleeper.close()
    assert wait_until(lambda: gone(sleeping), timeout_s=5)
    assert family.original.ask("ring") == 17


def test_no_programs_and_no_processes(family: Family) -> None:
    sleeper, _ = family.asleep(family.original.control)
    for one in (family.original, family.awake(sleeper)):
        assert one.ask("program") == 1  # EPERM
        assert one.ask("fork") == 1  # glibc's has other flags than ours


@pytest.mark.parametrize("request_", [b"x", bytes(4), bytes(4096)])
def test_what_is_no_request_changes_nothing(family: Family, request_: bytes) -> None:
    with socket.socket(fileno=os.dup(family.original.control.fileno())) as door:
        door.send(request_)
    assert family.original.ask("ring") == 17
    sleeper, _ = family.asleep(family.original.control)
    assert family.awake(sleeper).ask("ring") == 34


def test_of_what_has_ended_there_is_no_copy(family: Family) -> None:
    family.process.kill()
    family.process.wait()
    with pytest.raises(NoTwin):
        family.asleep(family.original.control)


def gone(pid: int) -> bool:
    return ProcessRef.of(pid) is None
