"""The wire protocol survives any split, and refuses what is not itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.agent.frames import HEADER, MAGIC, MAX_PAYLOAD, Frame, FrameReader, Kind
from firkin.errors import AgentError

frames = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    payload=st.binary(max_size=300),
    stream=st.integers(0, 2**32 - 1),
    flags=st.integers(0, 255),
)


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=50))
def test_frames_come_out_whole_however_they_were_split(sent: list[Frame], cuts: list[int]) -> None:
    wire = b"".join(frame.encode() for frame in sent)
    reader, received = FrameReader(), []
    for cut in cuts:
        piece, wire = wire[:cut], wire[cut:]
        received += list(reader.feed(piece))
    received += list(reader.feed(wire))
    assert received == sent


@given(st.binary(min_size=HEADER.size, max_size=200))
def test_garbage_is_refused_and_nothing_else_is_raised(garbage: bytes) -> None:
    reader = FrameReader()
    try:
        for frame in reader.feed(garbage):
            assert len(frame.payload) <= MAX_PAYLOAD
    except AgentError:
        with pytest.raises(AgentError, match="broken"):
            list(reader.feed(b""))


def test_a_promise_of_too_much_is_refused_before_it_is_buffered() -> None:
    header = HEADER.pack(MAGIC, Kind.STDOUT, 0, 1, MAX_PAYLOAD + 1)
    with pytest.raises(AgentError, match="not a frame"):
        list(FrameReader().feed(header))


@pytest.mark.parametrize("kind", [0, 23, 255])
def test_unknown_kinds_are_refused(kind: int) -> None:
    with pytest.raises(AgentError, match="not a frame"):
        list(FrameReader().feed(HEADER.pack(MAGIC, kind, 0, 0, 0)))


def test_the_largest_frame_fits_and_one_byte_more_does_not() -> None:
    largest = Frame(Kind.STDIN, bytes(MAX_PAYLOAD))
    assert list(FrameReader().feed(largest.encode())) == [largest]
    with pytest.raises(AgentError, match="do not fit") as caught:
        Frame(Kind.EXEC, bytes(MAX_PAYLOAD + 1)).encode()
    assert "stdin" in caught.value.hint
