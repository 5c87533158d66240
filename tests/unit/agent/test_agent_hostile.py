"""An agent that lies, floods or falls silent: the client says so in time, and holds no more than it offered to."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import pytest

from firkin.agent.client import AgentConnection, connect
from firkin.agent.frames import HEADER, MAGIC, MAX_PAYLOAD, FrameReader, Kind
from firkin.agent.messages import Hello
from firkin.errors import AgentError, ExecTimeout, GuestError

pytestmark = pytest.mark.timeout(20)

MEMORY_BOUND = 12 * 1024 * 1024  # of what Python allocates in one case, the hostile side included
Script = Iterable[bytes]

STREAM = 1
HELLO = Hello().encode(Kind.HELLO_ACK)


def frame(kind: int, payload: bytes = b"", *, stream: int = STREAM, length: int | None = None) -> bytes:
    """A frame that need not make sense."""
    return HEADER.pack(MAGIC, kind, 0, stream, len(payload) if length is None else length) + payload


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


STARTED = frame(Kind.STARTED, u32(7, 65536))
ENDED = frame(Kind.EXIT, u32(0, 0))
PIECE = frame(Kind.STDOUT, bytes(MAX_PAYLOAD))


class Liar:
    """Listens where a VMM would; greets with `greeting`, and answers the first request with `script`."""

    def __init__(self, path: Path, greeting: Script, script: Script, *, hangs_up: bool) -> None:
        self._greeting, self._script, self._hangs_up = greeting, script, hangs_up
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            peer.settimeout(0.05)
            with peer:
                self._talk(peer)

    def _talk(self, peer: socket.socket) -> None:
        reader = FrameReader()
        try:
            while not self._receive(peer).endswith(b"\n"):
                pass
            self._say(peer, self._greeting)
            while not any(request.kind == Kind.EXEC for request in reader.feed(self._receive(peer))):
                pass
            self._say(peer, self._script)
            while not self._hangs_up and not self._over.wait(0.02):
                pass
        except OSError:
            return  # the client had enough

    def _receive(self, peer: socket.socket) -> bytes:
        while not self._over.is_set():
            try:
                data = peer.recv(65536)
            except TimeoutError:
                continue
            if data:
                return data
            break
        raise ConnectionResetError

    def _say(self, peer: socket.socket, script: Script) -> None:
        for piece in script:
            view = memoryview(piece)
            while view and not self._over.is_set():
                try:
                    view = view[peer.send(view) :]
                except TimeoutError:
                    continue
            if self._over.is_set():
                return


Lie = Callable[..., Path]


@pytest.fixture
def lie(tmp_path: Path) -> Iterator[Lie]:
    liars: list[Liar] = []

    def begin(
        *script: bytes, endless: Script = (), greeting: Script = (b"OK 5\n", HELLO), hangs_up: bool = False
    ) -> Path:
        path = tmp_path / f"vsock-{len(liars)}"
        liars.append(
            Liar(path, greeting, (*script, *endless) if not endless else _chain(script, endless), hangs_up=hangs_up)
        )
        return path

    yield begin
    for liar in liars:
        liar.close()


def _chain(first: Script, then: Script) -> Iterator[bytes]:
    yield from first
    yield from then


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """What happens here takes no longer, and little memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
        assert time.monotonic() - began < seconds
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BOUND
    finally:
        tracemalloc.stop()


LIES: dict[str, tuple[bytes, str]] = {
    "garbage": (b"\x7fELF" * 64, "not a frame"),
    "text": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a frame"),
    "a length of 2^32-1": (STARTED + frame(Kind.STDOUT, length=2**32 - 1), "not a frame"),
    "a length that is one too many": (STARTED + frame(Kind.STDOUT, length=MAX_PAYLOAD + 1), "not a frame"),
    "an unknown kind": (frame(99), "not a frame"),
    "kind 0": (frame(0), "not a frame"),
    "a stream that nobody opened": (frame(Kind.STDOUT, b"x", stream=2), "which does not run"),
    "output for the connection": (frame(Kind.STDOUT, b"x", stream=0), "which does not run"),
    "stream 2^32-1": (frame(Kind.EXIT, u32(0, 0), stream=2**32 - 1), "which does not run"),
    "output before the start": (frame(Kind.STDOUT, b"x"), "has not started"),
    "credit before the start": (frame(Kind.WINDOW, u32(1)), "out of turn"),
    "an exit before the start": (ENDED, "out of turn"),
    "two starts": (STARTED + STARTED, "out of turn"),
    "a start that is cut short": (frame(Kind.STARTED, u32(7)), "STARTED of 4 bytes"),
    "a start that is too long": (frame(Kind.STARTED, u32(7, 1, 2)), "STARTED of 12 bytes"),
    "an exit of an unknown kind": (STARTED + frame(Kind.EXIT, u32(2, 0)), "an exit of kind 2"),
    "an exit code of 256": (STARTED + frame(Kind.EXIT, u32(0, 256)), "an exit of kind 0 with 256"),
    "an empty exit": (STARTED + frame(Kind.EXIT), "EXIT of 0 bytes"),
    "an empty window": (STARTED + frame(Kind.WINDOW), "WINDOW of 0 bytes"),
    "an empty error": (frame(Kind.ERROR), "ERROR of 0 bytes"),
    "a request from the guest": (frame(Kind.EXEC, b"\0" * 16), "out of turn"),
    "a poweroff from the guest": (STARTED + frame(Kind.POWEROFF), "out of turn"),
    "a second hello": (Hello().encode(Kind.HELLO_ACK), "which does not run"),
}


@pytest.mark.parametrize(("answer", "why"), LIES.values(), ids=LIES.keys())
def test_a_lie_ends_the_connection_and_is_named(lie: Lie, answer: bytes, why: str) -> None:
    path = lie(answer)
    with bounded(5), connect(path, 5) as connection:
        with pytest.raises(AgentError, match=why) as error:
            connection.run("true", timeout_s=5)
        assert str(error.value).startswith("agent: ")
        with pytest.raises(AgentError):  # and nothing more is believed
            connection.run("true", timeout_s=5)


FLOODS: dict[str, Script] = {
    "hellos": repeat(HELLO),
    "garbage": repeat(bytes(65536)),
    "errors of the connection": repeat(frame(Kind.ERROR, b"\x09\0" + u32(0), stream=0)),
}


def test_output_that_nobody_reads_stays_within_its_window(lie: Lie) -> None:
    path = lie(STARTED, endless=repeat(PIECE))
    with bounded(5), connect(path, 5) as connection, connection.start(["yes"]) as unread:
        with pytest.raises(AgentError, match="more output than was asked for"):
            connection.run("true", timeout_s=5)
        assert unread.read() is not None  # what came before that is still there


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_that_breaks_the_rules_is_cut_off(lie: Lie, flood: Script) -> None:
    path = lie(STARTED, endless=flood)
    with bounded(5), connect(path, 5) as connection, pytest.raises(AgentError):
        connection.run("true", timeout_s=5)


LAWFUL: dict[str, bytes] = {
    "endless output": PIECE,
    "empty output": frame(Kind.STDOUT) * 500,
    "endless credit": frame(Kind.WINDOW, u32(2**32 - 1)) * 500,
}


@pytest.mark.parametrize("flood", LAWFUL.values(), ids=LAWFUL.keys())
def test_a_flood_within_the_rules_stops_no_clock(lie: Lie, flood: bytes) -> None:
    path = lie(STARTED, endless=repeat(flood))
    with bounded(8), connect(path, 5) as connection, pytest.raises(ExecTimeout, match="still running after"):
        connection.run("true", timeout_s=0.1, max_output=1000)


SILENCES: dict[str, tuple[bytes, type[GuestError], str]] = {
    "at once": (b"", AgentError, "does not answer within 0.1 s"),
    "in a header": (STARTED[:5], AgentError, "does not answer within 0.1 s"),
    "in a payload": (STARTED[:-1], AgentError, "does not answer within 0.1 s"),
    "after the start": (STARTED, ExecTimeout, "still running after 0.1 s"),
    "in an output": (STARTED + PIECE[:100], ExecTimeout, "still running after 0.1 s"),
    "in the exit": (STARTED + PIECE + ENDED[:-1], ExecTimeout, "still running after 0.1 s"),
}


@pytest.mark.parametrize(("answer", "kind", "why"), SILENCES.values(), ids=SILENCES.keys())
def test_silence_has_an_end(lie: Lie, answer: bytes, kind: type[GuestError], why: str) -> None:
    path = lie(answer)
    with bounded(8), connect(path, 5) as connection, pytest.raises(kind, match=why):
        connection.run("true", timeout_s=0.1)


@pytest.mark.parametrize(("answer", "_kind", "_why"), SILENCES.values(), ids=SILENCES.keys())
def test_a_connection_that_is_cut_is_told_as_such(lie: Lie, answer: bytes, _kind: object, _why: str) -> None:
    path = lie(answer, hangs_up=True)
    with bounded(5), connect(path, 5) as connection, pytest.raises(AgentError, match=r"hung up|broke") as error:
        connection.run("true", timeout_s=5)
    assert error.value.hint


GREETINGS: dict[str, tuple[Script, str]] = {
    "nothing at all": ((), "no agent answers"),
    "an endless line": (repeat(b"A"), "nothing listens"),
    "something else": ((b"HTTP/1.1 400\r\n",), "in answer to CONNECT"),
    "no hello": ((b"OK 5\n",), "does not answer"),
    "half a hello": ((b"OK 5\n", HELLO[:20]), "does not answer"),
    "garbage": ((b"OK 5\n", bytes(4096)), "not a frame"),
    "another version": ((b"OK 5\n", Hello(90, 99).encode(Kind.HELLO_ACK)), "versions 90 to 99"),
    "a name of 4 GiB": ((b"OK 5\n", HELLO[:-4] + u32(2**32 - 1)), "makes no sense"),
    "no hello but an exit": ((b"OK 5\n", ENDED), "EXIT where a hello belongs"),
}


@pytest.mark.parametrize(("greeting", "why"), GREETINGS.values(), ids=GREETINGS.keys())
def test_who_does_not_greet_properly_is_not_talked_to(lie: Lie, greeting: Script, why: str) -> None:
    path = lie(greeting=greeting)
    with bounded(6), pytest.raises(AgentError, match=why):
        connect(path, 1.0)


def test_a_hello_that_comes_byte_by_byte_does_not_stretch_the_limit(lie: Lie) -> None:
    def drip() -> Iterator[bytes]:
        yield b"OK 5\n"
        for at in range(len(HELLO)):
            time.sleep(0.2)
            yield HELLO[at : at + 1]

    path = lie(greeting=drip())
    with bounded(3), pytest.raises(AgentError, match="does not answer"):
        connect(path, 0.6)


def test_after_two_exits_the_first_counts_and_the_connection_is_done(lie: Lie) -> None:
    path = lie(STARTED + ENDED + frame(Kind.EXIT, u32(0, 9)))
    with bounded(5), connect(path, 5) as connection:
        assert connection.run("true", timeout_s=5).returncode == 0
        with pytest.raises(AgentError, match="which does not run"):
            connection.run("true", timeout_s=5)


def test_an_answer_in_single_bytes_is_an_answer(lie: Lie) -> None:
    whole = STARTED + frame(Kind.STDOUT, b"out") + frame(Kind.STDERR, b"err") + ENDED
    path = lie(*(whole[at : at + 1] for at in range(len(whole))))
    with bounded(5), connect(path, 5) as connection:
        done = connection.run("true", timeout_s=5)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out", b"err")


def test_a_guest_that_reads_nothing_does_not_make_us_hold_its_input(lie: Lie) -> None:
    path = lie(STARTED, endless=(frame(Kind.WINDOW, u32(2**31)),))
    data = bytes(64 * 1024 * 1024)
    with bounded(8), connect(path, 5) as connection, pytest.raises(ExecTimeout):
        connection.run("cat", stdin=data, timeout_s=0.1)


def test_an_error_that_lies_about_its_length_says_nothing(lie: Lie) -> None:
    path = lie(frame(Kind.ERROR, b"\x09\0" + u32(2**32 - 1) + b"x"))
    with bounded(5), connect(path, 5) as connection, pytest.raises(AgentError, match="an error that makes no sense"):
        connection.run("true", timeout_s=5)


def test_an_error_cannot_write_to_our_terminal(lie: Lie) -> None:
    text = b"\x1b]0;owned\x07\x1b[2J" + b"A" * 60000
    path = lie(frame(Kind.ERROR, b"\x09\0" + u32(len(text)) + text))
    with bounded(5), connect(path, 5) as connection, pytest.raises(AgentError) as error:
        connection.run("true", timeout_s=5)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1200


def test_streams_of_other_threads_learn_of_the_break_too(lie: Lie) -> None:
    path = lie(STARTED, endless=(b"",))
    errors: list[Exception] = []

    def wait(connection: AgentConnection) -> None:
        try:
            connection.run("sleep", timeout_s=10)
        except GuestError as error:
            errors.append(error)

    with connect(path, 5) as connection:
        threads = [threading.Thread(target=wait, args=(connection,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        connection.close()
        for thread in threads:
            thread.join(5)
    assert len(errors) == 8
    assert all(isinstance(error, AgentError) for error in errors)
