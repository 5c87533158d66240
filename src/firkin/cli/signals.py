"""What happens to this process while a program in the guest has its terminal: signals, new sizes, a time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from firkin.agent.process import Process

PASSED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
INSISTS = 3  # interrupts after which the program is not asked any more, as docker has it


@contextmanager
def passed_on(process: Process, *, tty: bool) -> Iterator[None]:
    """In this scope the signals that we get go to the program, our terminal's size too; the third interrupt ends us."""
    interrupts = 0

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts >= INSISTS:
            raise KeyboardInterrupt
        process.signal(number)

    def resize(_number: int, _frame: FrameType | None) -> None:
        from firkin.cli.shell import terminal_size

        process.resize(*terminal_size())

    handlers = dict.fromkeys(PASSED, pass_on) | ({signal.SIGWINCH: resize} if tty else {})
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class Limit:
    """Whether the time was up before the program had ended."""

    passed: bool = False


@contextmanager
def time_limit(process: Process, timeout_s: float | None) -> Iterator[Limit]:
    """Kill the program when it still runs after so many seconds; None is for ever."""
    limit = Limit()
    if timeout_s is None:
        yield limit
        return

    def end() -> None:
        limit.passed = True
        process.kill()

    timer = threading.Timer(timeout_s, end)
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()
