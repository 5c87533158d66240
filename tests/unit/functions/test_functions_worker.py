"""A worker and the program that it runs in a guest, with this host's Python in the guest's place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from local_python import LocalPython

import firkin.functions.function as functions
from firkin.agent.messages import ExecRefused
from firkin.errors import ExecTimeout, FunctionFailed, HostError, UsageError
from firkin.functions import guest, ship
from firkin.functions.worker import IDLE_S, Program, Terms, Worker

Run = Callable[..., Any]


class Unfit(Exception):
    """An error of this module's own."""


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a function's call in a Python of its own."""
    programs: list[LocalPython] = []

    def start(argv: tuple[str, ...]) -> LocalPython:
        programs.append(LocalPython(argv))
        return programs[-1]

    def run(function: Callable[..., Any], *args: Any, timeout_s: float = 30, **terms: Any) -> Any:
        worker = Worker(
            start,
            Terms(name=function.__name__, image="python", timeout_s=timeout_s, **terms),
            ship.pack_function(function, trusted=terms.get("trusted", False)),
        )
        return worker.call(ship.pack_call(function, args, {}))

    yield run
    for program in programs:
        program.close()


def add(a: int, b: int) -> int:
    return a + b


def helper(value: int) -> int:
    return value * 2


def uses_a_helper(value: int) -> int:
    return helper(value) + 1


def test_a_function_of_a_module_that_the_guest_lacks_runs_there(run: Run) -> None:
    assert run(add, 1, 2) == 3
    assert run(uses_a_helper, 20) == 41
    assert run(os.getpid) != os.getpid()


def loud() -> None:
    print("one")  # noqa: T201 - what is tested
    sys.stderr.write("two\n")
    subprocess.run(["sh", "-c", "echo three"], check=True)
    os.write(1, b"four\n")


def test_output_of_all_kinds_passes_through(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(loud)
    out, err = capsys.readouterr()
    assert out == "one\nthree\nfour\n"
    assert err == "two\n"


def flood() -> int:
    for _ in range(50):
        print("x" * 100_000)  # noqa: T201 - what is tested
    return 7


def test_more_output_than_a_pipe_holds(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flood) == 7
    assert len(capsys.readouterr().out) == 50 * 100_001


def closes_everything() -> str:
    sys.stdout.close()
    os.close(1)
    os.close(2)
    return "fine"


def test_a_function_may_close_its_output(run: Run) -> None:
    assert run(closes_everything) == "fine"


def reads_stdin() -> str:
    return sys.stdin.read()


def test_stdin_is_empty(run: Run) -> None:
    assert run(reads_stdin) == ""


def divides(by: int) -> float:
    return 1 / by


def test_an_error_keeps_its_type_and_shows_the_guests_lines(run: Run) -> None:
    with pytest.raises(ZeroDivisionError) as failure:
        run(divides, 0)
    [note] = failure.value.__notes__
    assert "return 1 / by" in note
    assert "in divides" in note
    assert guest.NAME not in note


def raises_unfit() -> None:
    raise Unfit("no", 7)


def test_an_error_of_ones_own_comes_back_where_it_was_named(run: Run) -> None:
    with pytest.raises(Unfit) as failure:
        run(raises_unfit, raises=(Unfit,))
    assert failure.value.args == ("no", 7)
    with pytest.raises(FunctionFailed, match="Unfit: "):
        run(raises_unfit)


@pytest.mark.parametrize("end", [lambda: sys.exit(3), lambda: exec("raise KeyboardInterrupt")])
def test_a_function_cannot_make_us_exit(run: Run, end: Callable[[], None]) -> None:
    with pytest.raises(FunctionFailed):
        run(end)


def test_a_value_that_is_not_plain_is_named_with_its_place_and_a_way_out(run: Run) -> None:
    with pytest.raises(FunctionFailed, match=r"result\['a'\]\[1\] is a pathlib") as failure:
        run(lambda: {"a": [1, __import__("pathlib").Path("/x")]})
    assert "trusted=True" in failure.value.hint


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def test_with_trust_any_value_and_any_error_comes_back(run: Run) -> None:
    assert run(lambda: Point(3), trusted=True).x == 3
    with pytest.raises(Exception, match="no") as failure:
        run(raises_unfit, trusted=True)
    assert type(failure.value).__name__ == "Unfit"
    assert "In the guest" in failure.value.__notes__[0]


def forges_a_pickle() -> None:
    """What a hostile guest would do: answer with a pickle that nobody asked for."""
    for fd in range(3, 16):
        try:
            os.write(fd, guest.HEADER.pack(guest.PICKLED, 14) + b"cos\nabort\n(tR.")
        except OSError:
            continue


def test_a_pickle_from_a_guest_that_is_not_trusted_is_never_read(run: Run) -> None:
    with pytest.raises(FunctionFailed, match="makes no sense"):
        run(forges_a_pickle)


def test_a_function_that_takes_too_long_is_ended(run: Run) -> None:
    began = time.monotonic()
    with pytest.raises(ExecTimeout, match=r"still running after 0\.5 s"):
        run(lambda: time.sleep(60), timeout_s=0.5)
    assert time.monotonic() - began < 10


def test_an_answer_that_is_too_long_is_refused_before_it_is_read(run: Run) -> None:
    with pytest.raises(FunctionFailed, match="1,000 are allowed") as failure:
        run(lambda: bytes(2000), max_result=1000)
    assert failure.value.hint


@pytest.mark.parametrize(
    ("end", "said"), [(lambda: os._exit(3), "ended with 3"), (lambda: os.kill(os.getpid(), 9), "killed by signal 9")]
)
def test_a_python_that_dies_is_told_with_how(run: Run, end: Callable[[], None], said: str) -> None:
    with pytest.raises(FunctionFailed, match=said):
        run(end)


def test_a_python_that_died_while_it_was_idle_is_noticed() -> None:
    terms = Terms(name="f", image="python")
    with LocalPython(ship.COMMAND) as program:
        worker = Worker(lambda argv: program, terms, ship.pack_function(os.getpid, trusted=False))
        pid = worker.call(ship.pack_call(os.getpid, (), {}))
        time.sleep(IDLE_S)
        assert worker.alive
        os.kill(pid, 9)
        time.sleep(IDLE_S)
        assert not worker.alive


def test_what_cannot_be_sent_is_refused_here(run: Run) -> None:
    with pytest.raises(UsageError, match="cannot be sent") as refusal:
        run(add, threading.Lock(), 1)
    assert refusal.value.hint


@functions.function
def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci.remote(n - 2)


def test_within_a_guest_a_remote_function_is_a_plain_one(run: Run) -> None:
    assert run(fibonacci.local, 10) == 55
    assert run(lambda: fibonacci(5)) == 5


class Elsewhere:
    """A program that greets as another Python."""

    status = None

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self.closed = False

    def read(self, timeout_s: float | None = None) -> Any:
        return (1, self._greeting) if not self.closed else None

    def write(self, data: bytes, timeout_s: float | None = None) -> None:
        raise AssertionError("nothing is sent to a Python that cannot read it")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("greeting", [b"cpython-309\n", b"\x1b[2J" * 100, b"pypy39-pp73\n"])
def test_another_python_is_refused_before_anything_is_sent(greeting: bytes) -> None:
    from firkin.agent.outputs import Output

    class Other(Elsewhere):
        def read(self, timeout_s: float | None = None) -> Output | None:
            return Output(1, greeting)

    program = Other(greeting)
    with pytest.raises(HostError, match="code cannot cross") as refusal:
        Worker(lambda argv: program, Terms(name="f", image="x"), b"")
    assert program.closed
    assert refusal.value.hint
    assert "\x1b" not in str(refusal.value)


def test_a_function_that_cannot_be_sent_boots_nothing() -> None:
    lock = threading.Lock()

    @functions.function(image="there is no such image")
    def locked() -> bool:
        return lock.locked()

    with pytest.raises(UsageError, match="cannot be sent"):
        locked()


def test_an_image_without_python_is_named() -> None:
    def refuse(argv: tuple[str, ...]) -> Program:
        raise ExecRefused("python3: No such file or directory", 127)

    with pytest.raises(HostError, match="image 'busybox': cannot run Python") as refusal:
        Worker(refuse, Terms(name="f", image="busybox"), b"")
    assert "image='python'" in refusal.value.hint


def test_a_coroutine_cannot_be_a_remote_function() -> None:
    async def later() -> None: ...

    with pytest.raises(UsageError, match="coroutine"):
        functions.function(later)
