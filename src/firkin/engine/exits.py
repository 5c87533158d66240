"""Ways out: exit codes, signals, and the errors that end the process."""

from __future__ import annotations

import _thread
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from firkin.engine.journal import Journal
from firkin.errors import EngineError

OK = 0
GENERIC = 1
UNEXPECTED = 2
BAD_LEVEL = 152
BAD_ARGUMENTS = 153
PANIC = 134

# Upstream dies of these with a code of its own; of SIGTERM and SIGINT by their default.
_CODES = {signal.SIGXFSZ: 151, signal.SIGXCPU: 154, signal.SIGHUP: 156}
# Of these too where somebody sends them. A real fault of ours cannot be handled in Python, and kills at once.
_FAULTS = {signal.SIGBUS: 149, signal.SIGSEGV: 150, signal.SIGILL: 157, signal.SIGSYS: UNEXPECTED}
_CAUGHT = (signal.SIGTERM, signal.SIGINT, *_CODES)
_RELAY = signal.SIGRTMIN

RECEIVED = dict.fromkeys(("sigbus", "sigsegv", "sigxfsz", "sigxcpu", "sigpipe", "sighup", "sigill"), 0)
"""How often each signal came: a process has one set of signals, so this is one for all."""


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

    def __init__(self, number: int, cause: int = 0) -> None:
        super().__init__(number)
        self.number = number
        self.cause = cause  # the kernel's si_code, 0 for a signal that a process sent

    @property
    def code(self) -> int | None:
        """Exit code, or None where the process is to die of the signal itself."""
        number = signal.Signals(self.number)
        return _CODES.get(number, _FAULTS.get(number))


def intercept_signals(journal: Journal) -> None:
    """Turn the signals that end us into an exception, once: what they interrupt must undo itself in peace.

    A SIGPIPE is only counted and told: whoever wrote has an error to deal with.
    """
    for number in _CAUGHT:
        signal.signal(number, _raise)
    signal.signal(signal.SIGPIPE, _PipeWatch(journal))
    _wait_for_faults()


def die_of(number: int) -> None:
    """End as if the signal had never been caught."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


@contextmanager
def ignoring(number: int) -> Iterator[None]:
    """Let a signal pass for a while: the call that earns it fails too, and that says more."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def _raise(number: int, _frame: FrameType | None) -> None:
    _end(number, 0)


def _end(number: int, cause: int) -> None:
    for each in (*_CAUGHT, _RELAY):
        signal.signal(each, signal.SIG_IGN)
    _count(number)
    raise Intercepted(number, cause)


def _count(number: int) -> None:
    name = signal.Signals(number).name.lower()
    if name in RECEIVED:
        RECEIVED[name] += 1


def _wait_for_faults() -> None:
    """Have a thread wait for them: a handler would return into the fault, and so for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _FAULTS)
    came: list[signal.struct_siginfo] = []
    signal.signal(_RELAY, lambda _number, _frame: _end(came[0].si_signo, came[0].si_code) if came else None)

    def wait(main: int) -> None:
        came.append(signal.sigwaitinfo(_FAULTS))
        signal.pthread_kill(main, _RELAY)

    _thread.start_new_thread(wait, (_thread.get_ident(),))


class _PipeWatch:
    """Handler of SIGPIPE. The line about one may go to the very pipe that broke: that one is let pass in silence."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._telling = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self._telling:
            return
        _count(number)
        self._telling = True
        try:
            self._journal.error(f"Received signal {number}, code 0.", by_guest=True)
        finally:
            self._telling = False
