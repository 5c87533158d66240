"""Where a file has data and where holes, and how a tar archive says so (GNU's sparse format 1.0)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from firkin.errors import BadArchive

BLOCK = 512
MAX_EXTENTS = 65536  # what a file of ours is cut into at most; small holes are sent as zeros before that
MAX_MAP_ENTRIES = 1 << 20  # what is taken from others
MAX_DIGITS = 20


class Extent(NamedTuple):
    """Bytes of a file that are stored."""

    offset: int
    length: int


def extents(fd: int, size: int, *, most: int = MAX_EXTENTS) -> list[Extent] | None:
    """The parts of a file of `size` bytes that are not holes, about `most` of them; None where it has no holes, or
    nobody knows."""
    if os.fstat(fd).st_blocks * BLOCK >= size:
        return None
    found: list[Extent] = []
    gap = 0  # holes smaller than this are taken for data
    for extent in _data(fd, size):
        if found and extent.offset - sum(found[-1]) < gap:
            found[-1] = _joined(found[-1], extent)
        else:
            found.append(extent)
        if len(found) > most:
            gap = max(gap * 2, 1 << 16)
            found = _without_gaps(found, gap)
    return None if found == [Extent(0, size)] else found


def encode_map(parts: list[Extent], size: int) -> bytes:
    """The map as it stands before the data, padded to a block. A hole at the end is an empty extent there."""
    whole = parts if parts and sum(parts[-1]) == size else [*parts, Extent(size, 0)]
    numbers = [len(whole), *(number for extent in whole for number in extent)]
    text = "".join(f"{number}\n" for number in numbers).encode()
    return text + bytes(-len(text) % BLOCK)


def decode_map(take: Callable[[int], bytes], size: int) -> tuple[list[Extent], int]:
    """Read a map, block by block with `take`, for a file of `size` bytes: (the extents, bytes that the map took).

    Raises:
        BadArchive: it is no map, is too long, or speaks of bytes beyond `size`.
    """
    numbers = _Numbers(take)
    count = numbers.next()
    if count > MAX_MAP_ENTRIES:
        raise BadArchive(f"a file in {count} pieces")
    found: list[Extent] = []
    end = 0
    for _ in range(count):
        extent = Extent(numbers.next(), numbers.next())
        if extent.offset < end or sum(extent) > size:
            raise BadArchive("a sparse file whose pieces overlap or lie beyond its end")
        end = sum(extent)
        if extent.length:
            found.append(extent)
    return found, numbers.taken


class _Numbers:
    """Decimal numbers, a line each."""

    def __init__(self, take: Callable[[int], bytes]) -> None:
        self._take = take
        self._buffer = b""
        self._at = 0
        self.taken = 0

    def next(self) -> int:
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if len(self._buffer) - self._at > MAX_DIGITS:
                raise BadArchive("a sparse file without a map")
            self._buffer = self._buffer[self._at :] + self._take(BLOCK)
            self._at = 0
            self.taken += BLOCK
        digits, self._at = self._buffer[self._at : end], end + 1
        if not digits.isdigit() or len(digits) > MAX_DIGITS:
            raise BadArchive("a sparse file whose map holds no numbers")
        return int(digits)


def _data(fd: int, size: int) -> Iterator[Extent]:
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a file system that does not know
                yield Extent(at, size - at)
            elif error.errno != errno.ENXIO:  # there is no data after `at`
                raise
            return
        if start < at:
            yield Extent(start, at - start)


def _without_gaps(parts: list[Extent], gap: int) -> list[Extent]:
    kept = [parts[0]]
    for extent in parts[1:]:
        if extent.offset - sum(kept[-1]) < gap:
            kept[-1] = _joined(kept[-1], extent)
        else:
            kept.append(extent)
    return kept


def _joined(first: Extent, last: Extent) -> Extent:
    return Extent(first.offset, sum(last) - first.offset)
