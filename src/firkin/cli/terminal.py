"""The terminal that we run on: raw mode, with a way back however we end."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Hand every key through unread while this scope runs; does nothing where `fd` is no terminal.

    SIGTERM and SIGHUP end us by an exception meanwhile, so that the terminal is brought back.
    """
    if not os.isatty(fd):
        yield
        return
    former = termios.tcgetattr(fd)
    handlers = {number: signal.signal(number, _leave) for number in ENDS}
    try:
        tty.setraw(fd, termios.TCSADRAIN)  # keys that were typed ahead are kept
        yield
    finally:
        with suppress(termios.error):  # the terminal itself may be gone: that is what SIGHUP says
            termios.tcsetattr(fd, termios.TCSADRAIN, former)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
