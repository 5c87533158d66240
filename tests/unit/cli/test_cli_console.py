"""Keys that end a console session, however they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.cli.console import DetachKeys, parse_keys
from firkin.errors import UsageError


def feed(sequence: bytes, *reads: bytes) -> tuple[bytes, bool]:
    keys, passed = DetachKeys(sequence), b""
    for read in reads:
        piece, detached = keys.feed(read)
        passed += piece
        if detached:
            return passed, True
    return passed, False


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        ((b"ls\r\x10\x11",), (b"ls\r", True)),
        ((b"ls\r\x10", b"\x11rest"), (b"ls\r", True)),
        ((b"\x10", b"x"), (b"\x10x", False)),
        ((b"\x10\x10", b"\x11"), (b"\x10", True)),
        ((b"\x11\x10",), (b"\x11", False)),
    ],
)
def test_the_sequence_is_found_and_what_is_before_it_passes(
    reads: tuple[bytes, ...], expected: tuple[bytes, bool]
) -> None:
    assert feed(b"\x10\x11", *reads) == expected


@given(st.lists(st.binary(max_size=4)), st.binary(min_size=1, max_size=4))
def test_how_it_is_cut_changes_nothing(reads: list[bytes], sequence: bytes) -> None:
    typed = b"".join(reads)
    passed, detached = feed(sequence, *reads)
    assert detached == (sequence in typed)
    if detached:
        assert passed == typed[: typed.index(sequence)]
    else:
        assert typed.startswith(passed)
        assert len(typed) - len(passed) < len(sequence)


@pytest.mark.parametrize(
    ("text", "keys"), [("ctrl-p,ctrl-q", b"\x10\x11"), ("", b"\x10\x11"), ("a", b"a"), ("ctrl-],X", b"\x1dX")]
)
def test_keys_are_written_as_for_docker(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,,b", "ü", "alt-a"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no key"):
        parse_keys(text)
