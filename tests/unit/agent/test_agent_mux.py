"""Streams of one connection: who gets which frame, what is owed to the guest, and what a hostile one cannot do."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.agent.frames import MAX_PAYLOAD, STDIN_EOF, Frame, FrameReader, Kind
from firkin.agent.messages import ExitStatus
from firkin.agent.mux import OUTPUT_WINDOW, Mux, Stream
from firkin.agent.outputs import MAX_PIECES, Output, Outputs
from firkin.agent.requests import encode_attach
from firkin.errors import AgentError


def opened(mux: Mux, *, started: bool = True, credit: int = 100) -> Stream:
    """A stream of this connection; what was queued for the guest is gone."""
    stream = mux.open(lambda number: encode_attach(7, window=OUTPUT_WINDOW, stream=number))
    if started:
        mux.receive(Frame(Kind.STARTED, struct.pack("<II", 7, credit), stream.number).encode())
    mux.outgoing.clear()
    return stream


def sent(mux: Mux) -> list[Frame]:
    frames = list(FrameReader().feed(bytes(mux.outgoing)))
    mux.outgoing.clear()
    return frames


def said(stream: Stream, data: bytes, kind: Kind = Kind.STDOUT) -> bytes:
    return Frame(kind, data, stream.number).encode()


def ended(stream: Stream, code: int = 0) -> bytes:
    return Frame(Kind.EXIT, struct.pack("<II", 0, code), stream.number).encode()


def test_each_stream_gets_its_own() -> None:
    mux = Mux()
    first, second = opened(mux), opened(mux)
    assert first.number != second.number
    touched = mux.receive(said(second, b"two") + said(first, b"one", Kind.STDERR) + ended(second, 3))
    assert set(map(id, touched)) == {id(first), id(second)}
    assert (mux.read(first), mux.read(first)) == (Output(2, b"one"), None)
    assert (mux.read(second), second.status) == (Output(1, b"two"), ExitStatus(code=3))
    assert (first.ended, second.ended, mux.running) == (False, True, 1)


def test_credit_goes_back_as_output_is_read_and_not_before() -> None:
    mux = Mux()
    stream = opened(mux)
    pieces = OUTPUT_WINDOW // MAX_PAYLOAD
    mux.receive(said(stream, bytes(MAX_PAYLOAD)) * pieces)
    assert (mux.error, sent(mux)) == (None, [])
    while mux.read(stream):
        pass
    assert sum(struct.unpack("<I", frame.payload)[0] for frame in sent(mux)) == OUTPUT_WINDOW


def test_more_output_than_was_asked_for_breaks_the_connection() -> None:
    mux = Mux()
    stream, other = opened(mux), opened(mux)
    touched = mux.receive(said(stream, bytes(MAX_PAYLOAD)) * (OUTPUT_WINDOW // MAX_PAYLOAD) + said(stream, b"x"))
    assert len(touched) == 2
    assert "more output" in str(stream.error)
    assert stream.error is not other.error  # two threads may raise them
    with pytest.raises(AgentError, match="more output"):
        mux.open(lambda number: b"")


def test_stdin_keeps_to_its_credit() -> None:
    mux = Mux()
    stream = opened(mux, credit=5)
    assert mux.write(stream, memoryview(b"hello world")) == 5
    assert not stream.takes_input
    assert mux.write(stream, memoryview(b" world")) == 0
    mux.receive(Frame(Kind.WINDOW, struct.pack("<I", 100), stream.number).encode())
    assert mux.write(stream, memoryview(b" world")) == 6
    mux.close_stdin(stream)
    mux.close_stdin(stream)
    frames = sent(mux)
    assert [frame.payload for frame in frames] == [b"hello", b" world", b""]
    assert [frame.flags for frame in frames] == [0, 0, STDIN_EOF]


def test_what_nobody_reads_is_dropped_and_paid_for() -> None:
    mux = Mux()
    stream = opened(mux)
    mux.abandon(stream)
    for _ in range(3 * OUTPUT_WINDOW // MAX_PAYLOAD):
        mux.receive(said(stream, bytes(MAX_PAYLOAD)))
    assert (mux.error, mux.read(stream)) == (None, None)
    assert sum(struct.unpack("<I", frame.payload)[0] for frame in sent(mux)) >= 2 * OUTPUT_WINDOW


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.STARTED, bytes(8)),  # a second time
        (Kind.HELLO, b""),
        (Kind.EXEC, b""),
        (Kind.EXIT, struct.pack("<II", 2, 0)),
        (Kind.EXIT, struct.pack("<II", 0, 256)),
        (Kind.EXIT, b""),
        (Kind.WINDOW, b"123"),
    ],
)
def test_frames_out_of_turn_break_the_connection(kind: Kind, payload: bytes) -> None:
    mux = Mux()
    stream = opened(mux)
    mux.receive(Frame(kind, payload, stream.number).encode())
    assert isinstance(mux.error, AgentError)


@pytest.mark.parametrize("kind", [Kind.STDOUT, Kind.WINDOW, Kind.EXIT])
def test_a_program_that_has_not_started_says_nothing(kind: Kind) -> None:
    mux = Mux()
    stream = opened(mux, started=False)
    mux.receive(Frame(kind, bytes(8 if kind == Kind.EXIT else 4), stream.number).encode())
    assert isinstance(mux.error, AgentError)


def test_nothing_follows_an_exit() -> None:
    mux = Mux()
    stream = opened(mux)
    mux.receive(ended(stream) + ended(stream))
    assert stream.status == ExitStatus(code=0)
    assert "does not run" in str(mux.error)


@given(st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 3), st.binary(max_size=40)), max_size=30))
def test_no_frames_whatever_raise_or_outgrow_the_window(frames: list[tuple[Kind, int, bytes]]) -> None:
    mux = Mux()
    streams = [opened(mux, started=False), opened(mux)]
    for kind, number, payload in frames:
        mux.receive(Frame(kind, payload, number).encode())
    for stream in streams:
        total = 0
        while output := mux.read(stream):
            total += len(output.data)
        assert total <= OUTPUT_WINDOW


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=3)), max_size=60))
def test_outputs_come_out_as_they_went_in(pieces: list[tuple[int, bytes]]) -> None:
    outputs = Outputs()
    for fd, data in pieces:
        outputs.push(fd, data)
    assert [outputs.pop() for _ in pieces] == pieces
    assert outputs.pop() is None


def test_many_small_outputs_are_joined_and_nothing_is_lost() -> None:
    outputs = Outputs()
    for number in range(20_000):
        outputs.push(1 + number % 2, b"%d" % (number % 10))
    popped = []
    while output := outputs.pop():
        popped.append(output)
    assert len(popped) <= MAX_PIECES
    for fd in (1, 2):
        expected = b"".join(b"%d" % (number % 10) for number in range(20_000) if 1 + number % 2 == fd)
        assert b"".join(output.data for output in popped if output.fd == fd) == expected
