from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.snapshot import clock

# The beginning of a stream that QEMU 7.2 wrote.
STREAM = bytes.fromhex(
    "5145564d 00000003 04 00000000 0574696d6572 00000000 00000002"
    "00000000418da4ab 0000000000000000 000000001936796d 7e00000000 04000000"
)


def times(stream: bytes) -> tuple[int, int]:
    ticks, nanoseconds = struct.unpack_from(">q8xq", stream, 27)
    return ticks, nanoseconds


def test_both_counters_move_on() -> None:
    ticks, nanoseconds = times(STREAM)
    later = clock.advance(STREAM, 3_000_000_000, 2_600_000)
    assert times(later) == (ticks + 3 * 2_600_000_000, nanoseconds + 3_000_000_000)
    assert (later[:27], later[51:]) == (STREAM[:27], STREAM[51:])


def test_no_time_changes_nothing() -> None:
    assert clock.advance(STREAM, 0, None) == STREAM


@given(st.binary(max_size=80))
def test_another_stream_is_refused(data: bytes) -> None:
    with pytest.raises(clock.NoClock):
        clock.advance(data, 1, None)


@given(st.integers(0, len(STREAM) - 1))
def test_a_short_stream_is_refused_or_whole_where_it_matters(size: int) -> None:
    if size >= 56:
        assert len(clock.advance(STREAM[:size], 1, None)) == size
    else:
        with pytest.raises(clock.NoClock):
            clock.advance(STREAM[:size], 1, None)
