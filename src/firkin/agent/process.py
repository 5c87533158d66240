"""A program in the guest, as a handle: read what it says, feed it, wait for its end, end it.

Tasks, kept programs and dialled ports are handles of the same kind.
"""

from __future__ import annotations

import signal as signals
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from firkin.agent.channel import Channel
from firkin.agent.feeder import Feeder, Sieve
from firkin.agent.messages import ExitStatus
from firkin.agent.mux import Stream
from firkin.agent.outputs import Output
from firkin.errors import ExecFailed, ExecTimeout

MAX_OUTPUT = 16 * 1024 * 1024
REPLY_TIMEOUT_S = 10.0
KILL_GRACE_S = 1.0  # for the agent to tell of an end that we asked for
_NEVER = threading.Event()


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a program left behind. `returncode` is its own, or 128 + the signal that killed it, as shells have it;
    `truncated` when it said more than was kept."""

    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False
    argv: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """stdout as UTF-8; bytes that are not become U+FFFD."""
        return self.stdout.decode(errors="replace")

    def check(self) -> ExecResult:
        """This very result, if the program ended with 0.

        Raises:
            ExecFailed: with the code and the end of stderr.
        """
        if self.returncode != 0:
            raise ExecFailed(self.argv, self.returncode, self.stderr)
        return self


class Keeper:
    """Keeps the first `limit` bytes of each output."""

    def __init__(self, limit: int) -> None:
        self._kept = {1: bytearray(), 2: bytearray()}
        self._truncated = False
        self._limit = limit

    def add(self, output: Output) -> None:
        """Keep a piece, or as much of it as there is room for."""
        kept = self._kept[output.fd]
        room = self._limit - len(kept)
        kept += output.data[:room]
        self._truncated = self._truncated or len(output.data) > room

    def result(self, status: ExitStatus, argv: tuple[str, ...]) -> ExecResult:
        """All that was kept, once the program has ended."""
        return ExecResult(status.returncode, bytes(self._kept[1]), bytes(self._kept[2]), self._truncated, argv)


class Process:
    """One running program. As a context manager it is killed at the end of its scope, unless it was kept.

    Whoever does not read holds the program up: once a window of output is under way, it waits. Methods may be called
    from several threads, `signal`, `kill` and `resize` also from signal handlers. Times are seconds; None is for ever.

    Raises:
        AgentError: from any method, when the agent went away or broke its protocol.
    """

    def __init__(self, channel: Channel, stream: Stream, argv: Sequence[str | bytes], *, kept: bool = False) -> None:
        self._channel = channel
        self._stream = stream
        self._feeder: Feeder | None = None
        self._outlives = kept
        self.argv = tuple(word if isinstance(word, str) else word.decode(errors="replace") for word in argv)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Output]:
        """Pieces of output until the program's end."""
        while (output := self.read()) is not None:
            yield output

    @property
    def pid(self) -> int:
        """The program's process id in the guest; 0 for a dialled port."""
        return self._stream.pid or 0

    @property
    def status(self) -> ExitStatus | None:
        """How the program ended; None while it runs, as far as we have heard."""
        return self._stream.status

    def read(self, timeout_s: float | None = None) -> Output | None:
        """The next piece of output; None when the program has ended and all was read.

        Raises:
            TimeoutError: nothing came within `timeout_s`; the program goes on.
        """
        if not self._await(self._readable, _deadline(timeout_s)):
            raise TimeoutError(f"{self._name}: no output within {timeout_s:g} s")
        output = self._channel.read(self._stream)
        if output is None:
            self._finished()
        return output

    def write(self, data: bytes, timeout_s: float | None = None) -> None:
        """Send to stdin; returns when all is on its way. What a program that has ended would not read is dropped.

        Raises:
            TimeoutError: the program did not take it within `timeout_s`.
        """
        self._write(data, _NEVER, _deadline(timeout_s))

    def put(self, data: bytes, cancelled: threading.Event) -> None:
        """As `write`, until `cancelled` is set and the connection nudged."""
        self._write(data, cancelled, None)

    def close_stdin(self) -> None:
        """End its input."""
        self._channel.close_stdin(self._stream)

    def feed(self, fd: int, sieve: Sieve | None = None) -> None:
        """From now on copy a descriptor to stdin, in a thread, until its end or the program's.

        A `sieve` sees each piece: it answers what to pass on, and whether to leave a kept program to itself then.
        """
        self._feeder = Feeder(self, fd, sieve) if sieve else Feeder(self, fd)

    def wait(self, timeout_s: float | None = None) -> ExitStatus:
        """Wait for the program's end; output that nobody read is dropped.

        Raises:
            ExecTimeout: it ran for longer; its process group was killed.
        """
        self._channel.abandon(self._stream)
        if not self._await(lambda: self._stream.ended, _deadline(timeout_s)):
            raise self._overdue(timeout_s)
        return self._finished()

    def result(self, *, stdin: bytes = b"", timeout_s: float | None = None, max_output: int = MAX_OUTPUT) -> ExecResult:
        """Send `stdin` and its end, read everything, and keep the first `max_output` bytes of each output.

        Raises:
            ExecTimeout: it ran for longer; its process group was killed.
        """
        kept, deadline, left = Keeper(max_output), _deadline(timeout_s), memoryview(stdin)
        while True:
            while (output := self._channel.read(self._stream)) is not None:
                kept.add(output)
            if self._stream.ended and not self._stream.outputs:
                return kept.result(self._finished(), self.argv)
            left = self._push(left)
            if not self._await(self._movable if left else self._readable, deadline):
                raise self._overdue(timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal to its whole process group. Nothing happens when it has ended."""
        self._channel.signal(self._stream, number)

    def kill(self) -> None:
        """End its process group at once (SIGKILL)."""
        self.signal(signals.SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the new size."""
        self._channel.resize(self._stream, rows, columns)

    def detach(self, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        """Leave a kept program to itself; `attach` finds it again by its pid.

        Raises:
            TimeoutError: the agent did not answer.
        """
        self._stop_feeding()
        self.leave()
        if not self._await(lambda: self._stream.ended, _deadline(timeout_s)):
            raise TimeoutError(f"{self._name}: the guest's agent does not answer")

    def leave(self) -> None:
        """As `detach`, without waiting for the agent's answer: whoever reads comes to the end."""
        self._channel.detach(self._stream)

    @property
    def detached(self) -> bool:
        """Whether it was left to itself, rather than ended."""
        return self._stream.reply is not None

    def close(self) -> None:
        """Be done with it: a program that still runs is killed, a kept one goes on."""
        self._stop_feeding()
        if self._stream.ended:
            return
        if self._outlives:
            self._channel.detach(self._stream)
        else:
            self.kill()
        self._channel.abandon(self._stream)

    @property
    def _name(self) -> str:
        return self.argv[0] if self.argv else "program"

    def _await(self, done: Callable[[], bool], deadline: float | None) -> bool:
        return self._channel.wait(self._stream, done, deadline)

    def _write(self, data: bytes, cancelled: threading.Event, deadline: float | None) -> None:
        view, stream = memoryview(data), self._stream
        while view and stream.stdin_open and not (stream.ended or cancelled.is_set()):
            if not self._await(lambda: stream.ended or cancelled.is_set() or self._can_push(), deadline):
                raise TimeoutError(f"{self._name}: does not read its input")
            view = view[self._channel.write(stream, view) :]

    def _readable(self) -> bool:
        return bool(self._stream.outputs) or self._stream.ended

    def _movable(self) -> bool:
        return self._readable() or self._can_push()

    def _can_push(self) -> bool:
        return self._channel.can_write(self._stream)

    def _push(self, left: memoryview) -> memoryview:
        """Send as much of stdin as may be sent now, and its end after the last of it."""
        while left and (size := self._channel.write(self._stream, left)):
            left = left[size:]
        if not left:
            self._channel.close_stdin(self._stream)
        return left

    def _finished(self) -> ExitStatus:
        self._stop_feeding()
        if self._stream.error is not None:
            raise self._stream.error
        return self._stream.status or ExitStatus(code=0)

    def _overdue(self, timeout_s: float | None) -> ExecTimeout:
        """Kill it, and see it gone, so that its place on the connection is free."""
        self._stop_feeding()
        self.kill()
        self._channel.abandon(self._stream)
        self._await(lambda: self._stream.ended, _deadline(KILL_GRACE_S))
        return ExecTimeout(f"{self._name}: still running after {timeout_s:g} s; killed")

    def _stop_feeding(self) -> None:
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            feeder.cancel()
            self._channel.nudge()
            feeder.join()


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s
