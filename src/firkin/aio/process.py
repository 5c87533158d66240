"""A program in the guest, as a handle to await: the twin of `firkin.Process`."""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from firkin.agent.feeder import Sieve, read
from firkin.agent.messages import ExitStatus
from firkin.agent.mux import Stream
from firkin.agent.outputs import Output
from firkin.agent.process import KILL_GRACE_S, MAX_OUTPUT, REPLY_TIMEOUT_S, ExecResult, Keeper
from firkin.errors import ExecTimeout

if TYPE_CHECKING:
    from firkin.aio.connection import Connection


class Process:
    """One running program. As a context manager it is killed at the end of its scope, unless it was kept; so it is when
    the task that awaits in that scope is cancelled.

    Whoever does not read holds the program up: once a window of output is under way, it waits. Belongs to one loop.
    Times are seconds; None is for ever.

    Raises:
        AgentError: from any method, when the agent went away or broke its protocol.
    """

    def __init__(
        self, connection: Connection, stream: Stream, argv: Sequence[str | bytes], *, kept: bool = False
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._outlives = kept
        self._feeding: asyncio.Task[None] | None = None
        self.argv = tuple(word if isinstance(word, str) else word.decode(errors="replace") for word in argv)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[Output]:
        """Pieces of output until the program's end."""
        while (output := await self.read()) is not None:
            yield output

    @property
    def pid(self) -> int:
        """The program's process id in the guest; 0 for a dialled port."""
        return self._stream.pid or 0

    @property
    def status(self) -> ExitStatus | None:
        """How the program ended; None while it runs, as far as we have heard."""
        return self._stream.status

    async def read(self, timeout_s: float | None = None) -> Output | None:
        """The next piece of output; None when the program has ended and all was read.

        Raises:
            TimeoutError: nothing came within `timeout_s`; the program goes on.
        """
        if not await self._await(self._readable, timeout_s):
            raise TimeoutError(f"{self._name}: no output within {timeout_s:g} s")
        output = self._connection.read(self._stream)
        if output is None:
            self._finished()
        return output

    async def write(self, data: bytes, timeout_s: float | None = None) -> None:
        """Send to stdin; returns when all is on its way. What a program that has ended would not read is dropped.

        Raises:
            TimeoutError: the program did not take it within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._write(memoryview(data))
        except TimeoutError:
            raise TimeoutError(f"{self._name}: does not read its input") from None

    def close_stdin(self) -> None:
        """End its input."""
        with self._connection.flushing():
            self._connection.mux.close_stdin(self._stream)

    def feed(self, fd: int, sieve: Sieve | None = None) -> None:
        """From now on copy a descriptor to stdin, until its end or the program's.

        A `sieve` sees each piece: it answers what to pass on, and whether to leave a kept program to itself then.
        """
        self._feeding = asyncio.create_task(self._copy(fd, sieve or _keep))

    async def wait(self, timeout_s: float | None = None) -> ExitStatus:
        """Wait for the program's end; output that nobody read is dropped.

        Raises:
            ExecTimeout: it ran for longer; its process group was killed.
        """
        self._abandon()
        if not await self._await(lambda: self._stream.ended, timeout_s):
            raise await self._overdue(timeout_s)
        return self._finished()

    async def result(
        self, *, stdin: bytes = b"", timeout_s: float | None = None, max_output: int = MAX_OUTPUT
    ) -> ExecResult:
        """Send `stdin` and its end, read everything, and keep the first `max_output` bytes of each output.

        Raises:
            ExecTimeout: it ran for longer; its process group was killed.
        """
        if stdin:
            self._feeding = asyncio.create_task(self._give(memoryview(stdin)))
        else:
            self.close_stdin()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._collect(Keeper(max_output))
        except TimeoutError:
            raise await self._overdue(timeout_s) from None

    def signal(self, number: int) -> None:
        """Send a signal to its whole process group. Nothing happens when it has ended."""
        self._connection.post(self._connection.mux.signal(self._stream, number))

    def kill(self) -> None:
        """End its process group at once (SIGKILL)."""
        self.signal(signals.SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the new size."""
        self._connection.post(self._connection.mux.resize(self._stream, rows, columns))

    async def detach(self, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        """Leave a kept program to itself; `attach` finds it again by its pid.

        Raises:
            TimeoutError: the agent did not answer.
        """
        self.leave()
        if not await self._await(lambda: self._stream.ended, timeout_s):
            raise TimeoutError(f"{self._name}: the guest's agent does not answer")

    def leave(self) -> None:
        """As `detach`, without waiting for the agent's answer: whoever reads comes to the end."""
        self._stop_feeding()
        with self._connection.flushing():
            self._connection.mux.detach(self._stream)

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
            self.leave()
        else:
            self.kill()
        self._abandon()

    @property
    def _name(self) -> str:
        return self.argv[0] if self.argv else "program"

    async def _await(self, done: Callable[[], bool], timeout_s: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._connection.wait(self._stream, done)
        except TimeoutError:
            return False
        return True

    async def _write(self, view: memoryview) -> None:
        stream = self._stream
        while view and stream.stdin_open and not stream.ended:
            await self._connection.wait(stream, lambda: stream.ended or self._connection.can_write(stream))
            view = view[self._connection.write(stream, view) :]

    async def _copy(self, fd: int, sieve: Sieve) -> None:
        leaves = False
        while not (self._stream.ended or leaves):
            await readable(fd)
            data = read(fd)
            if data == b"":
                self.close_stdin()
                return
            passed, leaves = sieve(data or b"")
            await self._write(memoryview(passed))
        if leaves:
            self.leave()

    async def _give(self, view: memoryview) -> None:
        await self._write(view)
        self.close_stdin()

    async def _collect(self, kept: Keeper) -> ExecResult:
        while (output := await self.read()) is not None:
            kept.add(output)
        return kept.result(self._finished(), self.argv)

    def _readable(self) -> bool:
        return bool(self._stream.outputs) or self._stream.ended

    def _finished(self) -> ExitStatus:
        self._stop_feeding()
        if self._stream.error is not None:
            raise self._stream.error
        return self._stream.status or ExitStatus(code=0)

    def _stop_feeding(self) -> None:
        if self._feeding is not None:
            self._feeding.cancel()

    def _abandon(self) -> None:
        with self._connection.flushing():
            self._connection.mux.abandon(self._stream)

    async def _overdue(self, timeout_s: float | None) -> ExecTimeout:
        """Kill it, and see it gone, so that its place on the connection is free."""
        self.kill()
        self._abandon()
        await self._await(lambda: self._stream.ended, KILL_GRACE_S)
        return ExecTimeout(f"{self._name}: still running after {timeout_s:g} s; killed")


def _keep(data: bytes) -> tuple[bytes, bool]:
    return data, False


async def readable(fd: int) -> None:
    """Wait until a descriptor has something to read. A file always has."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(fd, _settle, ready)
    except PermissionError:  # epoll does not take files
        return
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
