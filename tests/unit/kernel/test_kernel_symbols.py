from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.snapshot import reseed
from firkin.kernel import symbols

BASE = 0xFFFF_FFFF_8100_0000
COUNT = 600
WANTED = 417


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def kallsyms(*, offsets_first: bool, with_order: bool, absolute_percpu: bool = True) -> bytes:
    """A kernel's own table: every token stands for itself, so names are what they look like."""
    names, markers = b"", []
    for number in range(COUNT):
        if number % 256 == 0:
            markers.append(len(names))
        name = b"bbase_crng" if number == WANTED else b"Tfunction_%d" % number + b"x" * (200 if number == 3 else 0)
        length = bytes([len(name)]) if len(name) < 128 else bytes([len(name) & 0x7F | 0x80, len(name) >> 7])
        names += length + name
    words = [b"" if token == 0 else bytes([token]) for token in range(256)]
    index = [0]
    for word in words:
        index.append(index[-1] + len(word) + 1)
    shown = [-1 - 16 * number if absolute_percpu else 16 * number for number in range(COUNT)]
    offsets = pad(struct.pack(f"<{COUNT}i", *shown)) + struct.pack("<Q", BASE)
    order = pad(b"".join(number.to_bytes(3, "big") for number in range(COUNT))) if with_order else b""
    table = struct.pack("<II", COUNT, 0) + pad(names) + pad(struct.pack(f"<{len(markers)}I", *markers)) + order
    table += pad(b"".join(word + b"\0" for word in words)) + struct.pack("<256H", *index[:-1])
    table = offsets + table if offsets_first else bytes(16) + table + offsets
    return b"\1" * 64 + table + b"\1" * 64


@pytest.mark.parametrize("offsets_first", [True, False])
@pytest.mark.parametrize("absolute_percpu", [True, False])
def test_a_symbol_is_found(offsets_first: bool, absolute_percpu: bool) -> None:
    kernel = kallsyms(offsets_first=offsets_first, with_order=False, absolute_percpu=absolute_percpu)
    assert symbols.find(kernel, "base_crng") == BASE + 16 * WANTED
    assert symbols.find(kernel, "function_599") == BASE + 16 * 599
    assert symbols.find(kernel, "function_600") is None


def test_a_table_in_order_of_names_between_does_not_confuse() -> None:
    kernel = kallsyms(offsets_first=True, with_order=True)
    assert symbols.find(kernel, "base_crng") == BASE + 16 * WANTED


@given(st.integers(0, 20_000), st.binary(min_size=1, max_size=64))
def test_damage_does_no_harm(at: int, noise: bytes) -> None:
    kernel = bytearray(kallsyms(offsets_first=True, with_order=False))
    kernel[at : at + len(noise)] = noise
    found = symbols.find(bytes(kernel), "base_crng")
    assert found is None or found > 0


@given(st.binary(max_size=2000))
def test_a_file_without_a_table(data: bytes) -> None:
    assert symbols.find(data, "base_crng") is None


def test_a_file_gets_the_symbol_where_the_engine_looks_for_it() -> None:
    head = b"\x7fELF\x02\x01" + bytes(10)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 120, 0, 64, 56, 1, 64, 1, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 6, 0, BASE, 0x0100_0000, 0x10_0000, 0x10_0000, 4096)
    kernel = symbols.with_symbol(head + segment + bytes(64) + b"odd", "base_crng", BASE + 0x2840, 48)
    fd = os.memfd_create("kernel")
    os.write(fd, kernel)
    assert reseed.find(fd) == 0x0100_2840
    os.close(fd)
