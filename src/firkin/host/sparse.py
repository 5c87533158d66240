"""Sparse files: where they hold data, and copying that alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from firkin.host.libc import start_writing

_AT_ONCE = 4 << 20


class Extent(NamedTuple):
    """From `start` up to `end`."""

    start: int
    end: int


def data_extents(fd: int, size: int) -> Iterator[Extent]:
    """The parts of a sparse file that hold data. Raises: OSError."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < at:
            yield Extent(start, at)


def copy(source: int, target: int, extents: Iterable[Extent]) -> None:
    """Copy extents to the same places of another file, as clones where the file system can; the disk writes meanwhile.

    Raises: OSError.
    """
    begun = copied = 0  # up to where the disk was told to write, and how much was copied since
    for start, end in extents:
        at = start
        while at < end:
            count = _copy_some(source, target, at, min(end - at, _AT_ONCE))
            at += count
            copied += count
            if copied >= _AT_ONCE:
                start_writing(target, begun, at - begun)
                begun, copied = at, 0


def write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    """Write at a place of a file, however often it takes. Raises: OSError."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def _copy_some(source: int, target: int, at: int, count: int) -> int:
    try:
        copied = os.copy_file_range(source, target, count, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        os.lseek(target, at, os.SEEK_SET)
        copied = os.sendfile(target, source, at, count)
    if copied == 0:
        raise OSError(errno.EIO, f"the file ends at {at:#x}")
    return copied
