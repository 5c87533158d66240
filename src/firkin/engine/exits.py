"""Ways out: exit codes, signals, and the errors that end the process."""

from __future__ import annotations

import signal
from types import FrameType

from firkin.errors import EngineError

OK = 0
GENERIC = 1
BAD_LEVEL = 152
BAD_ARGUMENTS = 153
PANIC = 134

# Upstream dies of these with a code of its own; of SIGTERM and SIGINT by their default.
_CODES = {signal.SIGXCPU: 154, signal.SIGHUP: 156}
_CAUGHT = (signal.SIGTERM, signal.SIGINT, *_CODES)


class Fatal(EngineError):
    """The process must end. `debug` is the line for stderr, in the manner of a Rust error."""

    def __init__(self, text: str, *, debug: str, code: int = GENERIC) -> None:
        super().__init__(text)
        self.debug = debug
        self.code = code


class Panic(EngineError):
    """What upstream answers with an abort."""


class Intercepted(BaseException):
    """A signal arrived. Not an Exception: nothing on the way out may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def code(self) -> int | None:
        """Exit code, or None where the process is to die of the signal itself."""
        return _CODES.get(signal.Signals(self.number))


def intercept_signals() -> None:
    """Turn the signals that end us into an exception, once: what they interrupt must undo itself in peace."""
    for number in _CAUGHT:
        signal.signal(number, _raise)


def die_of(number: int) -> None:
    """End as if the signal had never been caught."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _raise(number: int, _frame: FrameType | None) -> None:
    for each in _CAUGHT:
        signal.signal(each, signal.SIG_IGN)
    raise Intercepted(number)
