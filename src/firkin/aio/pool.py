"""The connections that one machine's handle keeps open on the running loop: one, until it takes no more programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from firkin.agent.calls import Call
from firkin.agent.client import START_TIMEOUT_S
from firkin.aio.connection import Connection, connect
from firkin.aio.process import Process
from firkin.errors import AgentError

AGENT_TIMEOUT_S = 10.0
AT_ONCE = 256  # commands of `turn`; an agent runs 512 programs in all


class Pool:
    """Starts programs on connections with room for them. Begins anew when it is used on another loop.

    Nothing is awaited between the choice of a connection and the request on it, so its room needs no reservation.
    """

    def __init__(self, reach: Callable[[], Path], check: Callable[[], None]) -> None:
        self._reach = reach  # the VMM's socket, if the machine runs
        self._check = check  # raises where a request would be in vain
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, call: Call, timeout_s: float = START_TIMEOUT_S) -> Process:
        """Send a request that opens a stream.

        Raises:
            AgentError: the agent does not answer.
        """
        return await (await self.connection()).start(call, timeout_s)

    async def connection(self) -> Connection:
        """A connection that takes one more stream, now."""
        self._settle()
        self._check()
        if (found := self._find()) is not None:
            return found
        async with self._connecting:
            if (found := self._find()) is None:
                found = await connect(self._reach(), AGENT_TIMEOUT_S)
                self._connections.append(found)
            return found

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until fewer than `AT_ONCE` others are in such a scope."""
        self._settle()
        async with self._turns:
            yield

    def close(self, why: AgentError | None = None) -> None:
        """Hang up. What runs is killed, unless it is kept; who waits is told why. The pool may be used again."""
        if self._loop is not None and not self._loop.is_closed():
            for connection in self._connections:
                connection.close(why)
        self._loop = None

    def close_soon(self, why: AgentError) -> None:
        """As `close`, from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close, why)

    def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._connections: list[Connection] = []
            self._connecting = asyncio.Lock()
            self._turns = asyncio.Semaphore(AT_ONCE)

    def _find(self) -> Connection | None:
        self._connections = [connection for connection in self._connections if connection.mux.error is None]
        return next((connection for connection in self._connections if connection.has_room), None)
