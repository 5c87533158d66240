"""Guest memory, stored sparsely.

A cold guest's memory is QEMU's own. A restored guest's is the snapshot's file, mapped privately: forks share its pages
until they write. What a guest wrote is found in QEMU's page table. Huge pages, memory that a page fault handler fills,
and memory that a drive's own process reads are files of ours that QEMU maps shared: such a QEMU cannot be copied.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator

from firkin.engine.exits import ignoring
from firkin.engine.snapshot import reseed
from firkin.engine.snapshot.ledger import Ledger
from firkin.engine.snapshot.pagemap import ENTRY_SIZE, PAGE_SIZE, changed_pages, own_pages
from firkin.fcapi.machine import HugePages, MachineConfiguration
from firkin.host.sparse import Extent, copy, data_extents, write_all

_CHUNK = 1 << 20
_MFD_HUGE_2MB = 21 << 26


class GuestMemory(ABC):
    """The memory of one guest, for as long as it runs. `fd` is the file that QEMU maps, if any.

    With `track` a diff holds what differs from the last snapshot; without, all that may differ, as upstream's does.
    """

    shared: bool

    def __init__(self, fd: int | None, size: int, *, track: bool) -> None:
        self.fd = fd
        self.size = size
        self._ledger = Ledger(size // PAGE_SIZE) if track else None

    @abstractmethod
    def attach(self, pid: int, address: int) -> None:
        """Tell where process `pid` has it mapped. Raises: OSError."""

    @abstractmethod
    def reseed(self, address: int) -> bool:
        """Renew the random numbers of the guest's kernel; whether they were there. Raises: OSError."""

    @abstractmethod
    def save_all(self, target: int) -> None:
        """Write all that is in use into the file `target`. Raises: OSError."""

    def save_changes(self, target: int) -> None:
        """Write into `target` at least what differs from the last snapshot. Raises: OSError."""
        for at, data in self._pieces():
            if self._ledger is None:
                write_all(target, data, at)
            else:
                for start, end in self._ledger.changed(at // PAGE_SIZE, data):
                    write_all(target, memoryview(data)[start:end], at + start)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)

    def _note_all(self) -> None:
        """Count what the guest's memory holds as known to a snapshot."""
        if self._ledger is not None:
            for at, data in self._pieces():
                self._ledger.note(at // PAGE_SIZE, data)

    @abstractmethod
    def _extents(self) -> Iterator[Extent]:
        """Where the guest may have written since the memory was made."""

    @abstractmethod
    def _read(self, size: int, at: int) -> bytes: ...

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        for start, end in self._extents():
            for at in range(start, end, _CHUNK):
                size = min(_CHUNK, end - at)
                data = self._read(size, at)
                if len(data) != size:
                    raise OSError(errno.EFAULT, f"guest memory cannot be read at {at:#x}")
                yield at, data


class OwnMemory(GuestMemory):
    """A memfd of our own."""

    shared = True
    fd: int

    def __init__(self, size: int, *, huge_pages: bool, track: bool) -> None:
        """Raises: OSError, for more than there is."""
        flags = os.MFD_HUGETLB | _MFD_HUGE_2MB if huge_pages else 0
        fd = os.memfd_create("guest-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
        try:
            with ignoring(signal.SIGXFSZ):
                os.ftruncate(fd, size)
            # Whoever runs the guest can neither cut it off under us nor make it larger.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError:
            os.close(fd)
            raise
        super().__init__(fd, size, track=track)

    def attach(self, pid: int, address: int) -> None:
        """Not needed: it is read where it was made."""

    def reseed(self, address: int) -> bool:
        return address < self.size and reseed.reseed(self.fd, address)

    def save_all(self, target: int) -> None:
        copy(self.fd, target, self._extents())
        self._note_all()

    def _extents(self) -> Iterator[Extent]:
        return data_extents(self.fd, self.size)

    def _read(self, size: int, at: int) -> bytes:
        return os.pread(self.fd, size, at)


def fresh_memory(config: MachineConfiguration, *, lent: bool) -> GuestMemory:
    """For a guest that boots; `lent` to other processes than QEMU too. Raises: OSError, for more than there is."""
    size, huge_pages = config.mem_size_mib << 20, config.huge_pages is HugePages.HUGETLBFS_2M
    if huge_pages or lent:
        return OwnMemory(size, huge_pages=huge_pages, track=config.track_dirty_pages)
    return PrivateMemory(None, size, track=config.track_dirty_pages)


class PrivateMemory(GuestMemory):
    """Memory that only QEMU has, found by its page table."""

    shared = False

    def __init__(self, fd: int | None, size: int, *, track: bool) -> None:
        super().__init__(fd, size, track=track)
        self._address = 0
        self._memory = self._pagemap = -1

    def attach(self, pid: int, address: int) -> None:
        self._address = address
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def reseed(self, address: int) -> bool:
        return address < self.size and reseed.reseed(self._memory, self._address + address)

    def save_all(self, target: int) -> None:
        for at, data in self._pieces():
            write_all(target, data, at)
        self._note_all()

    def close(self) -> None:
        super().close()
        for fd in (self._memory, self._pagemap):
            if fd >= 0:
                os.close(fd)

    def _extents(self) -> Iterator[Extent]:
        pages = self.size // PAGE_SIZE
        for first in range(0, pages, _CHUNK // ENTRY_SIZE):
            size = min(_CHUNK, (pages - first) * ENTRY_SIZE)
            entries = os.pread(self._pagemap, size, (self._address // PAGE_SIZE + first) * ENTRY_SIZE)
            if len(entries) != size:
                raise OSError(errno.EFAULT, "the page table of QEMU ends early")
            for start, end in own_pages(entries):
                yield Extent((first + start) * PAGE_SIZE, (first + end) * PAGE_SIZE)

    def _read(self, size: int, at: int) -> bytes:
        return os.pread(self._memory, size, self._address + at)


class ForkedMemory(PrivateMemory):
    """A snapshot's file that QEMU maps privately, or of which it has a copy that knows more pages by heart."""

    fd: int

    def save_all(self, target: int) -> None:
        copy(self.fd, target, data_extents(self.fd, self.size))
        super().save_all(target)

    def save_changes(self, target: int) -> None:
        """As every memory, but what a copied QEMU only knows by heart is no change."""
        if self._ledger is not None:
            super().save_changes(target)
            return
        for at, data in self._pieces():
            for start, end in changed_pages(data, os.pread(self.fd, len(data), at)):
                write_all(target, memoryview(data)[start:end], at + start)
