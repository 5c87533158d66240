"""Guest memory: made by the engine, mapped by QEMU, and stored sparsely.

A cold guest's memory is a memfd that QEMU maps shared. A restored guest's is the snapshot's own file, mapped privately:
forks share its pages until they write, and what one of them wrote is found in QEMU's page table.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from firkin.errors import EngineError

PAGE_SIZE = 4096
_CHUNK = 1 << 20

_MFD_HUGE_2MB = 21 << 26
_PRESENT, _SWAPPED, _OF_FILE = 1 << 63, 1 << 62, 1 << 61
_ENTRY = 8  # bytes in /proc/PID/pagemap for each page
_NO_PAGES = bytes(512 * _ENTRY)


class Extent(NamedTuple):
    """Bytes from `start` up to `end`."""

    start: int
    end: int


class MemoryLost(EngineError):
    """Guest memory cannot be read: QEMU is gone, or was never what it claims."""


class GuestMemory(Protocol):
    """The memory of one guest. `fd` is what QEMU maps; it is ours to close."""

    fd: int
    size: int
    shared: bool

    def attach(self, pid: int, address: int) -> None:
        """Tell where process `pid` has it mapped. Raises: OSError."""

    def save_all(self, target: int) -> None:
        """Write all that is in use into the file `target`. Raises: OSError, MemoryLost."""

    def save_changes(self, target: int) -> None:
        """Write into `target` at least what differs from the last snapshot. Raises: as above."""

    def close(self) -> None: ...


class OwnMemory:
    """A memfd of our own. The kernel does not tell what changed in it, so changes are all that is in use."""

    shared = True

    def __init__(self, size: int, *, huge_pages: bool) -> None:
        """Raises: OSError, for more than there is."""
        self.size = size
        flags = os.MFD_HUGETLB | _MFD_HUGE_2MB if huge_pages else 0
        self.fd = os.memfd_create("guest-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
        try:
            os.ftruncate(self.fd, size)
            # Whoever runs the guest can neither cut it off under us nor make it larger.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError:
            os.close(self.fd)
            raise

    def attach(self, pid: int, address: int) -> None:
        pass

    def save_all(self, target: int) -> None:
        copy(self.fd, target, data_extents(self.fd, self.size))

    save_changes = save_all

    def close(self) -> None:
        os.close(self.fd)


class ForkedMemory:
    """A snapshot's file that QEMU maps privately; the pages that it has of its own are what the guest changed."""

    shared = False

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self._address = 0
        self._memory = self._pagemap = -1

    def attach(self, pid: int, address: int) -> None:
        self._address = address
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def save_all(self, target: int) -> None:
        copy(self.fd, target, data_extents(self.fd, self.size))
        self.save_changes(target)

    def save_changes(self, target: int) -> None:
        for start, end in self._own_extents():
            for at in range(start, end, _CHUNK):
                data = os.pread(self._memory, min(_CHUNK, end - at), self._address + at)
                if not data:
                    raise MemoryLost(f"guest memory cannot be read at {at:#x}")
                write_all(target, data, at)

    def close(self) -> None:
        for fd in (self.fd, self._memory, self._pagemap):
            if fd >= 0:
                os.close(fd)

    def _own_extents(self) -> Iterator[Extent]:
        first = self._address // PAGE_SIZE
        for at in range(0, self.size // PAGE_SIZE, _CHUNK // _ENTRY):
            count = min(_CHUNK // _ENTRY, self.size // PAGE_SIZE - at)
            entries = os.pread(self._pagemap, count * _ENTRY, (first + at) * _ENTRY)
            if len(entries) != count * _ENTRY:
                raise MemoryLost("QEMU's page table ends early")
            for page, end in own_pages(entries):
                yield Extent((at + page) * PAGE_SIZE, (at + end) * PAGE_SIZE)


def own_pages(entries: bytes) -> Iterator[Extent]:
    """Runs of pages that are no longer the file's, by /proc/PID/pagemap's entries: page numbers."""
    start = None
    for block in range(0, len(entries), len(_NO_PAGES)):
        piece = entries[block : block + len(_NO_PAGES)]
        if start is None and piece == _NO_PAGES[: len(piece)]:
            continue  # most of a large guest
        for page, (entry,) in enumerate(struct.iter_unpack("<Q", piece), block // _ENTRY):
            own = entry & _SWAPPED or (entry & _PRESENT and not entry & _OF_FILE)
            if own and start is None:
                start = page
            elif not own and start is not None:
                yield Extent(start, page)
                start = None
    if start is not None:
        yield Extent(start, len(entries) // _ENTRY)


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
    """Copy extents to the same places of another file, as clones where the file system can. Raises: OSError."""
    for start, end in extents:
        at = start
        while at < end:
            at += _copy_some(source, target, at, end - at)


def _copy_some(source: int, target: int, at: int, count: int) -> int:
    try:
        copied = os.copy_file_range(source, target, count, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        os.lseek(target, at, os.SEEK_SET)
        copied = os.sendfile(target, source, at, count)
    if copied == 0:
        raise MemoryLost(f"the memory file ends at {at:#x}")
    return copied


def write_all(fd: int, data: bytes, at: int) -> None:
    """Write at a place of a file, however often it takes. Raises: OSError."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written
