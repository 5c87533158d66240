from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.snapshot import reseed

VIRTUAL, PHYSICAL = 0xFFFF_FFFF_8100_0000, 0x0100_0000
AT = 0x4_2A80
KEY = bytes(range(32))


def elf(*, name: bytes = b"base_crng", address: int = VIRTUAL + AT, size: int = 56) -> bytes:
    """A kernel file with one segment, a symbol table and its names."""
    names = b"\0jiffies\0" + name + b"\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 9, 1, 0, 1, address, size)
    head_size, segment_size, section_size = 64, 56, 64
    names_at = head_size + segment_size + 3 * section_size
    head = b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 120, 0, 64, 56, 1, 64, 3, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 6, 0, VIRTUAL, PHYSICAL, 0x10_0000, 0x10_0000, 4096)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, names_at + len(names), len(symbols), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    return head + segment + sections + names + symbols


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("file")
    yield fd
    os.close(fd)


def find(fd: int, content: bytes) -> int | None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)
    return reseed.find(fd)


def test_the_generator_is_found_where_the_kernel_is_loaded(fd: int) -> None:
    assert find(fd, elf()) == PHYSICAL + AT


def test_a_kernel_that_does_not_tell(fd: int) -> None:
    assert find(fd, elf(name=b"primary_crng")) is None
    assert find(fd, elf(size=16)) is None
    assert find(fd, elf(address=0x1000)) is None
    assert find(fd, b"MZ") is None
    assert find(fd, b"") is None


@given(st.integers(0, 400), st.binary(min_size=1, max_size=16))
def test_a_damaged_kernel_file_does_no_harm(at: int, noise: bytes) -> None:
    whole = bytearray(elf())
    whole[at : at + len(noise)] = noise
    fd = os.memfd_create("file")
    try:
        found = find(fd, bytes(whole))
    finally:
        os.close(fd)
    assert found is None or found >= 0


def test_key_and_generation_change_and_nothing_else(fd: int) -> None:
    os.pwrite(fd, KEY + struct.pack("<QQQ", 5, 7, 99), 100)
    assert reseed.reseed(fd, 100)
    data = os.pread(fd, 56, 100)
    assert data[:32] != KEY
    assert struct.unpack_from("<QQQ", data, 32) == (5, 8, 99)


@pytest.mark.parametrize("content", [b"", KEY, bytes(48), KEY + struct.pack("<QQ", 5, 0), KEY + b"\xff" * 16])
def test_what_is_no_generator_is_left_alone(fd: int, content: bytes) -> None:
    os.pwrite(fd, content, 0)
    assert not reseed.reseed(fd, 0)
    assert os.pread(fd, 100, 0) == content
