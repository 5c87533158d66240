"""Give a stripped kernel file back one symbol, whose address the kernel itself keeps in its own compressed table.

The table is kallsyms (scripts/kallsyms.c of Linux): 256 tokens, names made of tokens, a marker for every 256th name,
and 32-bit offsets from a base, which come before the names up to Linux 6.3 and after the tokens since.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

# What the engine looks for in a kernel file, to reseed random numbers of restored guests; and how much it touches.
RANDOM_STATE, RANDOM_STATE_SIZE = "base_crng", 48

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))  # the tokens of ten characters, always there, in a row
_TOKENS, _PER_MARKER = 256, 256
_LONGEST_NAME = 130  # bytes of a compressed one, at most, and as an average of 256 far more than it ever is
_LONGEST_WORD = 64
_CANDIDATES = 64
_KERNEL_SPACE = 0xFFFF_FFFF_8000_0000

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _STRTAB, _OBJECT, _ABSOLUTE = 2, 3, 1, 0xFFF1


class _Tokens(NamedTuple):
    """The dictionary, where it begins, and where the table of its offsets ends."""

    start: int
    end: int
    words: list[bytes]


def find(kernel: bytes, name: str) -> int | None:
    """The address of a symbol, or None where the kernel has no table, another kind of it, or no such symbol."""
    for tokens in _dictionaries(kernel):
        for markers_at in _zeros_before(kernel, tokens.start):
            try:
                names_at = _names(kernel, markers_at)
                if names_at is not None:
                    return _address(kernel, tokens, names_at, name.encode())
            except (struct.error, IndexError):
                continue  # what looked like a table leads out of the file
    return None


def with_symbol(kernel: bytes, name: str, address: int, size: int) -> bytes:
    """The ELF file with a symbol table that holds this one symbol.

    Raises:
        struct.error: it is no ELF file with sections.
    """
    head = list(_HEADER.unpack_from(kernel))
    table, entry_size, count = head[6], head[11], head[12]
    sections = kernel[table : table + entry_size * count]
    names = b"\0" + name.encode() + b"\0"
    symbols = bytes(_SYMBOL.size) + _SYMBOL.pack(1, _OBJECT, 0, _ABSOLUTE, address, size)
    body = kernel + bytes(-len(kernel) % 8)
    symbols_at, names_at = len(body), len(body) + len(symbols)
    body += symbols + names
    body += bytes(-len(body) % 8)
    head[6], head[12] = len(body), count + 2
    body += sections
    body += _SECTION.pack(0, _SYMTAB, 0, 0, symbols_at, len(symbols), count + 1, 2, 8, _SYMBOL.size)
    body += _SECTION.pack(0, _STRTAB, 0, 0, names_at, len(names), 0, 0, 1, 0)
    return _HEADER.pack(*head) + body[_HEADER.size :]


def _dictionaries(kernel: bytes) -> Iterator[_Tokens]:
    at = kernel.find(_DIGITS)
    while at >= 0:
        # Forward to the end, where the offsets of all words are: they tell where it begins.
        rest = kernel[at : at + _TOKENS * _LONGEST_WORD].split(b"\0", _TOKENS - ord("0"))[:-1]
        index_at = _aligned(at + sum(len(word) + 1 for word in rest))
        index = kernel[index_at : index_at + 2 * _TOKENS]
        start = at - int.from_bytes(index[2 * ord("0") :][:2], "little")
        words = kernel[start:index_at].split(b"\0", _TOKENS)[:_TOKENS]
        if index == _index_of(words):
            yield _Tokens(start, index_at + len(index), words)
        at = kernel.find(_DIGITS, at + 1)


def _index_of(words: list[bytes]) -> bytes:
    ends = accumulate((len(word) + 1 for word in words), initial=0)
    return b"".join([end.to_bytes(4, "little")[:2] for end in ends][:_TOKENS])


def _zeros_before(kernel: bytes, end: int) -> Iterator[int]:
    """Where the markers may begin: their first one is 0."""
    at, found = end // 4 * 4, 0
    while found < _CANDIDATES and (at := kernel.rfind(bytes(4), 0, at)) >= 0:
        if at % 4 == 0:
            found += 1
            yield at


def _markers(kernel: bytes, at: int) -> list[int]:
    markers = [0]
    while 0 < (marker := _word(kernel, at + 4 * len(markers))) - markers[-1] < _PER_MARKER * _LONGEST_NAME:
        markers.append(marker)
    return markers


def _names(kernel: bytes, end: int) -> int | None:
    """Where the names begin that the markers at `end` belong to: 256 of them take as much as the second marker says."""
    markers = _markers(kernel, end)
    if len(markers) < 2:
        return None
    highest = (end - markers[-1]) // 8 * 8
    for at in range(highest, max(0, highest - _PER_MARKER * _LONGEST_NAME), -8):
        count = _word(kernel, at - 8)
        if -(-count // _PER_MARKER) == len(markers) and _skip(kernel, at, _PER_MARKER) == at + markers[1]:
            return at
    return None


def _skip(kernel: bytes, at: int, count: int) -> int:
    for _ in range(count):
        at, length = _length(kernel, at)
        at += length
    return at


def _length(kernel: bytes, at: int) -> tuple[int, int]:
    """Where a name's tokens begin, and how many they are."""
    length = kernel[at]
    if length & 0x80:  # two bytes since Linux 6.1
        return at + 2, length & 0x7F | kernel[at + 1] << 7
    return at + 1, length


def _address(kernel: bytes, tokens: _Tokens, names_at: int, wanted: bytes) -> int | None:
    count, at = _word(kernel, names_at - 8), names_at
    for number in range(count):
        at, length = _length(kernel, at)
        text = b"".join([tokens.words[token] for token in kernel[at : at + length]])
        if text[1:] == wanted:  # the first character is the kind
            return _offset(kernel, names_at, tokens.end, number, count)
        at += length
    return None


def _offset(kernel: bytes, names_at: int, tokens_end: int, number: int, count: int) -> int | None:
    size = _aligned(4 * count)
    after = _aligned(tokens_end)
    # Base and offsets: before the number of names, or behind the tokens.
    for base_at, offsets_at in ((names_at - 16, names_at - 16 - size), (after + size, after)):
        (base,) = struct.unpack_from("<Q", kernel, base_at)
        if base >= _KERNEL_SPACE:
            (offset,) = struct.unpack_from("<i", kernel, offsets_at + 4 * number)
            return int(base - 1 - offset if offset < 0 else base + offset)
    return None


def _word(kernel: bytes, at: int) -> int:
    return int.from_bytes(kernel[at : at + 4], "little")


def _aligned(at: int) -> int:
    return -(-at // 8) * 8
