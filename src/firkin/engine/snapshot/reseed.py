"""Restored guests must not share their random numbers: new key material for the generator of the guest's Linux.

Where the kernel file names `base_crng` (its random number generator's state since 5.18, and in later 5.10 and 5.15),
the engine does in guest memory what the kernel does on the notice of a new VM generation: another key, and a higher
generation, which makes each processor drop what it derived from the old one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

SYMBOL = b"base_crng"

_SECTION = struct.Struct("<IIQQQQII16x")
_SEGMENT = struct.Struct("<II8xQQ8xQ8x")
_ENTRY = struct.Struct("<IBBHQQ")
_SYMBOL_TABLE, _LOADED = 2, 1
_TABLE_LIMIT = 64 << 20

_KEY_SIZE = 32
_GENERATOR = struct.Struct(f"<{_KEY_SIZE}sQQ")  # key, time of the last seeding, generation; a lock follows
_SIZES = range(_GENERATOR.size, 4 * _GENERATOR.size)  # a kernel that checks its locks has larger ones
_PLAUSIBLE = range(1, 1 << 40)


class _Section(NamedTuple):
    kind: int
    offset: int
    size: int
    link: int


def find(kernel: int) -> int | None:
    """The guest-physical address of the generator, by an open ELF file; None where the file does not tell.

    Whatever the file holds, this does not fail.
    """
    try:
        head = os.pread(kernel, 64, 0)
        sections = list(_sections(kernel, head))
        for section in sections:
            if section.kind == _SYMBOL_TABLE and section.link < len(sections):
                address = _look_up(_read(kernel, section), _read(kernel, sections[section.link]))
                return None if address is None else _physical(kernel, head, address)
    except (OSError, struct.error, OverflowError):
        pass
    return None


def reseed(memory: int, address: int) -> bool:
    """Give the generator at `address` of an open /proc/PID/mem new randomness; whether one that had begun was there.

    Raises:
        OSError: the memory cannot be reached.
    """
    data = os.pread(memory, _GENERATOR.size, address)
    if len(data) < _GENERATOR.size:
        return False
    key, birth, generation = _GENERATOR.unpack(data)
    if generation not in _PLAUSIBLE or not any(key):
        return False
    fresh = int.from_bytes(key, "little") ^ int.from_bytes(os.urandom(_KEY_SIZE), "little")
    os.pwrite(memory, _GENERATOR.pack(fresh.to_bytes(_KEY_SIZE, "little"), birth, generation + 1), address)
    return True


def _sections(kernel: int, head: bytes) -> Iterator[_Section]:
    if head[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
        return
    table, size, count = struct.unpack_from("<Q10xHH", head, 0x28)
    for data in _rows(kernel, table, size, count, _SECTION):
        _name, kind, _flags, _address, offset, length, link, _info = data
        yield _Section(kind, offset, length, link)


def _rows(kernel: int, at: int, size: int, count: int, layout: struct.Struct) -> Iterator[tuple[int, ...]]:
    if size != layout.size:
        return
    yield from layout.iter_unpack(os.pread(kernel, size * count, at))


def _read(kernel: int, section: _Section) -> bytes:
    return os.pread(kernel, min(section.size, _TABLE_LIMIT), section.offset)


def _look_up(symbols: bytes, names: bytes) -> int | None:
    name = names.find(b"\0" + SYMBOL + b"\0") + 1
    if not name:
        return None
    wanted = struct.pack("<I", name)
    at = symbols.find(wanted)
    while at >= 0 and at % _ENTRY.size:
        at = symbols.find(wanted, at + 1)
    if at < 0:
        return None
    _name, _info, _other, _section, address, size = _ENTRY.unpack_from(symbols, at)
    return address if size in _SIZES else None


def _physical(kernel: int, head: bytes, address: int) -> int | None:
    (table,) = struct.unpack_from("<Q", head, 0x20)
    size, count = struct.unpack_from("<HH", head, 0x36)
    for kind, _flags, virtual, physical, length in _rows(kernel, table, size, count, _SEGMENT):
        if kind == _LOADED and virtual <= address < virtual + length:
            return physical + address - virtual
    return None
