"""One Python in a guest that runs calls, one after another. Everything it sends is untrusted."""

from __future__ import annotations

import codecs
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from firkin.agent.messages import ExecRefused, ExitStatus
from firkin.agent.outputs import Output
from firkin.errors import ExecTimeout, FunctionFailed, GuestError, HostError
from firkin.functions import guest, ship, values
from firkin.spec import Environment

START_TIMEOUT_S = 60.0
IDLE_S = 1.0  # after which a worker is asked whether it still lives
LOOK_S = 0.001
LOOKS = 64
MAX_GREETING = 64


class Program(Protocol):
    """A running program: a `Process`."""

    @property
    def status(self) -> ExitStatus | None: ...

    def read(self, timeout_s: float | None = None) -> Output | None: ...

    def write(self, data: bytes, timeout_s: float | None = None) -> None: ...

    def close(self) -> None: ...


Start = Callable[[tuple[str, ...]], Program]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under which terms a function runs."""

    name: str
    image: str
    env: Environment = ()
    user: str | None = None
    timeout_s: float | None = None  # for a call
    trusted: bool = False  # answers may be pickles, which can run anything here
    raises: tuple[type[Exception], ...] = ()
    max_result: int = 16 * 2**20  # bytes


@dataclass(slots=True)
class _Printer:
    """Passes the function's output on to ours, as text."""

    decoders: dict[int, codecs.IncrementalDecoder] = field(
        default_factory=lambda: {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in (1, 2)}
    )

    def __call__(self, fd: int, data: bytes) -> None:
        stream = sys.stdout if fd == guest.STDOUT else sys.stderr
        stream.write(self.decoders[fd].decode(data))
        stream.flush()


class Worker:
    """Runs calls of one function.

    Raises:
        HostError: the image has no Python, or another version of it.
        GuestError: it does not answer.
    """

    def __init__(self, start: Start, terms: Terms, function: bytes) -> None:
        self._terms = terms
        self._buffer = bytearray()
        self._print = _Printer()
        self._closed = False
        self._used = time.monotonic()
        try:
            self._program = start(ship.COMMAND)
        except ExecRefused as error:
            raise HostError(
                f"image {terms.image!r}: cannot run Python: {error}", hint="use image='python', or one with python3"
            ) from error
        try:
            self._greet(time.monotonic() + START_TIMEOUT_S)
            self._program.write(ship.luggage() + function)
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can take another call. One that was idle may have died, with its machine or without."""
        if not self._closed and time.monotonic() - self._used > IDLE_S:
            self._look()
        return not self._closed and self._program.status is None

    def close(self) -> None:
        """End it, and what runs in it."""
        self._closed = True
        self._program.close()

    def call(self, call: bytes) -> Any:
        """Send a CALL frame; its value, or its error raised. What the function prints goes to our own streams.

        After any error but the function's own the worker is of no more use.

        Raises:
            ExecTimeout: no answer in time; the Python was ended.
            FunctionFailed: it failed in a way that has no type here, or Python itself ended.
        """
        timeout_s = self._terms.timeout_s
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            self._program.write(call, timeout_s)
            kind, payload = self._answer(deadline)
        except TimeoutError:
            self.close()
            raise ExecTimeout(f"{self._terms.name}: still running after {timeout_s:g} s; ended") from None
        except BaseException:
            self.close()
            raise
        self._used = time.monotonic()
        if kind == guest.ERROR:
            raise self._error(payload)
        return self._unpickle(payload) if kind == guest.PICKLED else values.decode(payload)

    def _look(self) -> None:
        """Take in what came since the last call, its end too."""
        try:
            for _ in range(LOOKS):
                self._receive(time.monotonic() + LOOK_S)
        except TimeoutError:
            return
        except GuestError:
            self.close()

    def _greet(self, deadline: float) -> None:
        while b"\n" not in self._buffer and len(self._buffer) < MAX_GREETING:
            self._receive(deadline)
        said, _, rest = bytes(self._buffer).partition(b"\n")
        ship.check_python(values.clean(said[:MAX_GREETING].decode(errors="replace")), self._terms.image)
        self._buffer[:] = rest

    def _answer(self, deadline: float | None) -> tuple[int, bytes]:
        while True:
            kind, payload = self._frame(deadline)
            if kind in (guest.STDOUT, guest.STDERR):
                self._print(kind, payload)
            elif kind in (guest.VALUE, guest.ERROR) or (kind == guest.PICKLED and self._terms.trusted):
                return kind, payload
            else:
                raise FunctionFailed(f"{self._terms.name}: the guest's answer makes no sense: a frame of kind {kind}")

    def _frame(self, deadline: float | None) -> tuple[int, bytes]:
        size = guest.HEADER.size
        self._fill(size, deadline)
        kind, length = guest.HEADER.unpack_from(self._buffer)
        if length > self._terms.max_result:
            raise FunctionFailed(
                f"{self._terms.name}: its answer has {length:,} bytes, {self._terms.max_result:,} are allowed",
                hint="@firkin.function(max_result=...), or write a file and copy it out",
            )
        self._fill(size + length, deadline)
        payload = bytes(self._buffer[size : size + length])
        del self._buffer[: size + length]
        return kind, payload

    def _fill(self, size: int, deadline: float | None) -> None:
        while len(self._buffer) < size:
            self._receive(deadline)

    def _receive(self, deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        output = self._program.read(left)
        if output is None:
            raise self._ended()
        if output.fd == 1:
            self._buffer += output.data
        else:
            self._print(output.fd, output.data)

    def _ended(self) -> FunctionFailed:
        status = self._program.status or ExitStatus(code=0)
        how = f"was killed by signal {status.signal}" if status.signal else f"ended with {status.code}"
        hint = "out of memory? @firkin.function(memory_mib=...)" if status.signal == 9 else ""
        return FunctionFailed(f"{self._terms.name}: the guest's Python {how}", hint=hint)

    def _error(self, payload: bytes) -> Exception:
        raised = values.decode_raised(payload)
        if raised.pickled is not None and self._terms.trusted:
            error = self._unpickle(raised.pickled)
            if isinstance(error, Exception):
                error.add_note("In the guest:\n" + values.clean(raised.trace).rstrip())
                return error
        return values.rebuild(raised, self._terms.name, self._terms.raises)

    def _unpickle(self, data: bytes) -> Any:
        """The user trusts this guest with this very process: `trusted=True`."""
        import pickle

        return pickle.loads(data)


class Ticket:
    """One call, which another thread may call off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._off = False
        self._worker: Worker | None = None

    @contextmanager
    def held_for(self, worker: Worker) -> Iterator[None]:
        """For this scope the call is that worker's.

        Raises:
            FunctionFailed: it was called off before.
        """
        with self._lock:
            if self._off:
                raise FunctionFailed("called off before it began")
            self._worker = worker
        try:
            yield
        finally:
            with self._lock:
                self._worker = None

    def call_off(self) -> None:
        """End the Python that it runs in, or have it not begin."""
        with self._lock:
            self._off = True
            if self._worker is not None:
                self._worker.close()
