"""A connection on a loop, with an agent at its other end that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from firkin.agent.calls import exec_call
from firkin.agent.frames import Frame, FrameReader, Kind
from firkin.agent.mux import OUTPUT_WINDOW
from firkin.aio.connection import Connection
from firkin.aio.process import Process
from firkin.errors import AgentError, ExecTimeout

STARTED = struct.pack("<II", 7, 65536)


class Agent:
    """The other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._frames = FrameReader()
        self._heard: list[Frame] = []

    async def hears(self, kind: Kind) -> Frame:
        """The next frame of that kind."""
        while True:
            while self._heard:
                frame = self._heard.pop(0)
                if frame.kind == kind:
                    return frame
            self._heard += self._frames.feed(await self._reader.read(65536))

    def says(self, kind: Kind, payload: bytes = b"", stream: int = 1) -> None:
        self._writer.write(Frame(kind, payload, stream).encode())

    def writes(self, data: bytes) -> None:
        self._writer.write(data)

    def hangs_up(self) -> None:
        self._writer.close()


Scene = Callable[[Connection, Agent], Awaitable[None]]


def play(scene: Scene) -> None:
    """Both ends of a connection for a scene, which may take ten seconds."""

    async def stage() -> None:
        ours, theirs = socket.socketpair()
        _, connection = await asyncio.get_running_loop().create_unix_connection(Connection, sock=ours)
        agent = Agent(*await asyncio.open_unix_connection(sock=theirs))
        try:
            async with asyncio.timeout(10):
                await scene(connection, agent)
        finally:
            connection.close()
            agent.hangs_up()
            await asyncio.sleep(0)

    asyncio.run(stage())


async def started(connection: Connection, agent: Agent) -> Process:
    starting = asyncio.create_task(connection.start(exec_call(["prog"])))
    await agent.hears(Kind.EXEC)
    agent.says(Kind.STARTED, STARTED)
    return await starting


def test_a_program_is_started_read_and_ends() -> None:
    async def scene(connection: Connection, agent: Agent) -> None:
        process = await started(connection, agent)
        assert process.pid == 7
        agent.says(Kind.STDOUT, b"out")
        agent.says(Kind.STDERR, b"err")
        agent.says(Kind.EXIT, struct.pack("<II", 0, 3))
        result = await process.result()
        assert (result.stdout, result.stderr, result.returncode) == (b"out", b"err", 3)
        assert not connection.mux.running

    play(scene)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"garbage, and more of it", "agent"),
        (struct.pack("<HBBII", 0x4B46, Kind.STDOUT, 0, 1, 2**32 - 1), "agent"),
        (Frame(Kind.STDOUT, b"x", 99).encode(), "stream 99"),
        (Frame(Kind.STARTED, STARTED, 1).encode(), "out of turn"),
        (Frame(Kind.STDOUT, b"x" * 65536, 1).encode() * (OUTPUT_WINDOW // 65536 + 1), "more output than"),
    ],
)
def test_an_agent_that_breaks_the_protocol_fails_all_who_wait(data: bytes, said: str) -> None:
    async def scene(connection: Connection, agent: Agent) -> None:
        process = await started(connection, agent)
        other = asyncio.create_task(connection.start(exec_call(["other"])))
        await agent.hears(Kind.EXEC)
        agent.writes(data)
        for waiting in (other, process.wait()):
            with pytest.raises(AgentError, match=said):
                await waiting
        with pytest.raises(AgentError, match=said):
            await connection.start(exec_call(["third"]))

    play(scene)


def test_an_agent_that_hangs_up_fails_all_who_wait() -> None:
    async def scene(connection: Connection, agent: Agent) -> None:
        process = await started(connection, agent)
        agent.hangs_up()
        with pytest.raises(AgentError, match="hung up") as failure:
            await process.wait()
        assert failure.value.hint
        assert not connection.has_room

    play(scene)


def test_an_agent_that_is_silent_is_given_up_on_and_the_program_killed() -> None:
    async def scene(connection: Connection, agent: Agent) -> None:
        with pytest.raises(AgentError, match=r"within 0\.05 s"):
            await connection.start(exec_call(["prog"]), 0.05)
        await agent.hears(Kind.SIGNAL)
        agent.says(Kind.STARTED, STARTED)
        agent.says(Kind.STDOUT, b"nobody wants it")
        agent.says(Kind.EXIT, struct.pack("<II", 1, 9))
        while connection.mux.running:
            await asyncio.sleep(0.001)

    play(scene)


def test_a_time_limit_holds_against_an_agent_that_does_not_kill() -> None:
    async def scene(connection: Connection, agent: Agent) -> None:
        process = await started(connection, agent)
        waiting = asyncio.create_task(process.result(timeout_s=0.05))
        assert (await agent.hears(Kind.SIGNAL)).payload == struct.pack("<I", 9)
        agent.says(Kind.EXIT, struct.pack("<II", 1, 9))
        with pytest.raises(ExecTimeout, match=r"still running after 0\.05 s"):
            await waiting

    play(scene)


def test_stdin_goes_within_the_guests_credit() -> None:
    async def scene(connection: Connection, agent: Agent) -> None:
        process = await started(connection, agent)
        writing = asyncio.create_task(process.write(b"x" * 65537))
        assert len((await agent.hears(Kind.STDIN)).payload) == 65536
        with pytest.raises(TimeoutError, match="does not read its input"):
            await process.write(b"y", timeout_s=0.01)
        agent.says(Kind.WINDOW, struct.pack("<I", 1))
        await writing
        assert (await agent.hears(Kind.STDIN)).payload == b"x"

    play(scene)


def test_what_is_read_is_offered_again_and_what_is_not_read_holds_the_program_up() -> None:
    async def scene(connection: Connection, agent: Agent) -> None:
        process = await started(connection, agent)
        for _ in range(OUTPUT_WINDOW // 65536):
            agent.says(Kind.STDOUT, b"x" * 65536)
        for _ in range(OUTPUT_WINDOW // 65536):
            assert await process.read() == (1, b"x" * 65536)
        credit = 0
        while credit < OUTPUT_WINDOW:
            credit += struct.unpack("<I", (await agent.hears(Kind.WINDOW)).payload)[0]
        assert credit == OUTPUT_WINDOW

    play(scene)
