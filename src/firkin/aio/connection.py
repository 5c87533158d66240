"""One connection to the guest's agent on asyncio's loop. What the frames mean is the `Mux`'s business."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from firkin.agent.calls import Call
from firkin.agent.channel import ENDED_HINT
from firkin.agent.client import START_TIMEOUT_S, greet, silent
from firkin.agent.frames import Frame, Kind
from firkin.agent.identity import Identity, render_identity
from firkin.agent.mux import MAX_STREAMS, Mux, Stream
from firkin.agent.outputs import Output
from firkin.agent.process import REPLY_TIMEOUT_S
from firkin.agent.reach import dial
from firkin.aio.process import Process
from firkin.aio.threads import in_thread
from firkin.errors import AgentError


class Connection(asyncio.Protocol):
    """Sends and receives for a `Mux`; wakes who waits for a stream. Belongs to one loop."""

    def __init__(self) -> None:
        self.mux = Mux()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[Stream, list[asyncio.Future[None]]] = {}
        self._full = False  # the transport holds enough: writers wait

    @property
    def has_room(self) -> bool:
        """Whether it stands and takes one more stream."""
        return self.mux.error is None and self.mux.running < MAX_STREAMS

    def close(self, why: AgentError | None = None) -> None:
        """Hang up; what waits gets an error."""
        self._fail(why or AgentError("the connection to the guest's agent was closed"))
        if self._transport is not None:
            self._transport.abort()

    async def start(self, call: Call, timeout_s: float = START_TIMEOUT_S) -> Process:
        """Send a request that opens a stream, and wait until the agent took it."""
        with self.flushing():
            stream = self.mux.open(call.encode, call.fault)
        process = Process(self, stream, call.argv, kept=call.kept)
        try:
            await self._answered(stream, lambda: stream.settled, timeout_s)
        except BaseException:
            process.close()
            raise
        return process

    async def request(self, kind: Kind, timeout_s: float, payload: bytes = b"") -> Frame:
        """Send a request that has one answer."""
        with self.flushing():
            stream = self.mux.open(lambda number: Frame(kind, payload, number).encode())
        await self._answered(stream, lambda: stream.ended, timeout_s)
        if stream.reply is None:
            raise AgentError(f"agent: no OK in reply to {kind.name}")
        return stream.reply

    async def identify(self, identity: Identity, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        """Make the guest, a fork, the machine that `identity` says. Then all of it holds."""
        await self.request(Kind.IDENTITY, timeout_s, render_identity(identity, time.time_ns()))

    async def wait(self, stream: Stream, done: Callable[[], bool]) -> None:
        """Wait until frames for `stream`, or room to send, have made `done` true."""
        while not done():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(stream, []).append(waiter)
            try:
                await waiter
            finally:
                self._forget(stream, waiter)

    def read(self, stream: Stream) -> Output | None:
        """The next piece of output that has arrived."""
        with self.flushing():
            return self.mux.read(stream)

    def can_write(self, stream: Stream) -> bool:
        """Whether `write` would send something."""
        return stream.takes_input and not self._full

    def write(self, stream: Stream, data: memoryview) -> int:
        """Send what may be sent now; answers how many bytes."""
        with self.flushing():
            return 0 if self._full else self.mux.write(stream, data)

    @contextlib.contextmanager
    def flushing(self) -> Iterator[None]:
        """What this scope has the mux send is on its way afterwards."""
        try:
            yield
        finally:
            self.post(b"")

    def post(self, frame: bytes) -> None:
        """Send a frame, after what the mux has to send."""
        outgoing = self.mux.outgoing
        outgoing += frame
        if outgoing and self._transport is not None and self.mux.error is None:
            self._transport.write(bytes(outgoing))
        outgoing.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # a stream socket has no other
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(AgentError(f"the connection to the guest's agent broke: {error or 'it hung up'}", hint=ENDED_HINT))

    def data_received(self, data: bytes) -> None:
        self._wake(self.mux.receive(data))
        if self.mux.error is not None:
            self.close()
        else:
            self.post(b"")

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake(list(self._waiting))

    async def _answered(self, stream: Stream, done: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.wait(stream, done)
        except TimeoutError:
            raise silent(timeout_s) from None
        if stream.error is not None:
            raise stream.error

    def _fail(self, error: AgentError) -> None:
        self._wake(self.mux.fail(error))

    def _wake(self, streams: list[Stream]) -> None:
        for stream in streams:
            for waiter in self._waiting.get(stream, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def _forget(self, stream: Stream, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting[stream]
        waiters.remove(waiter)
        if not waiters:
            del self._waiting[stream]


async def connect(uds_path: Path, timeout_s: float) -> Connection:
    """Connect to the agent through the VMM's vsock socket, as `firkin.agent.client.connect` does.

    Raises:
        AgentError: no agent answered in time.
    """
    sock = await in_thread(lambda: _shake_hands(uds_path, timeout_s))
    _, connection = await asyncio.get_running_loop().create_unix_connection(Connection, sock=sock)
    return connection


def _shake_hands(uds_path: Path, timeout_s: float) -> socket.socket:
    """In a thread: it blocks, but happens once per connection."""
    sock, left = dial(uds_path, timeout_s)
    try:
        greet(sock, left)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
