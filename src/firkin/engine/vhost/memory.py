"""The guest's memory as the vhost backend sees it: QEMU's own address space plus the table that maps guest addresses.

Going through /proc/PID/mem works for shared memory and for a fork's private copy alike.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from firkin.errors import GuestError

LOG_PAGE_SIZE = 4096


class RingBroken(GuestError):
    """The guest's ring makes no sense, or its memory is gone: the device stops until the driver resets it."""


class Span(NamedTuple):
    """A run of bytes in QEMU's address space."""

    address: int
    size: int


class Region(NamedTuple):
    """One row of the memory table: `size` bytes of guest memory and where QEMU has them mapped."""

    guest: int
    size: int
    host: int


class Memory(Protocol):
    """What a ring needs of memory. Addresses are QEMU's own; every failure is RingBroken."""

    def read(self, address: int, size: int) -> bytes: ...

    def write(self, address: int, data: bytes | memoryview) -> None: ...

    def spans(self, guest_address: int, size: int) -> list[Span]: ...


class ProcessMemory:
    """Memory of a process through an open /proc/PID/mem, which pins that process's memory, not its pid."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.regions: tuple[Region, ...] = ()
        self.log_address: int | None = None  # a bitmap of dirty guest pages, while a live migration runs

    def read(self, address: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, address)
        except (OSError, OverflowError) as reason:
            raise RingBroken(f"cannot read {size} bytes of guest memory at {address:#x}: {reason}") from reason
        if len(data) != size:
            raise RingBroken(f"guest memory ends {size - len(data)} bytes early at {address:#x}")
        return data

    def write(self, address: int, data: bytes | memoryview) -> None:
        try:
            written = os.pwrite(self._fd, data, address)
        except (OSError, OverflowError) as reason:
            raise RingBroken(f"cannot write {len(data)} bytes of guest memory at {address:#x}: {reason}") from reason
        if written != len(data):
            raise RingBroken(f"guest memory ends {len(data) - written} bytes early at {address:#x}")
        if self.log_address is not None:
            self._log(address, written)

    def spans(self, guest_address: int, size: int) -> list[Span]:
        """Where a guest buffer lies, in order; empty for no bytes."""
        found = []
        while size:
            guest, room, host = self._region(guest_address)
            offset = guest_address - guest
            part = min(size, room - offset)
            found.append(Span(host + offset, part))
            guest_address += part
            size -= part
        return found

    def _region(self, guest_address: int) -> Region:
        for region in self.regions:
            if 0 <= guest_address - region.guest < region.size:
                return region
        raise RingBroken(f"guest address {guest_address:#x} is no memory")

    def _log(self, address: int, size: int) -> None:
        """Mark the pages of a write in the migration's bitmap.

        QEMU clears words of the bitmap while we set bits. Losing that race marks a page twice, never not at all,
        because nobody else sets bits.
        """
        for region in self.regions:
            start, end = max(address, region.host), min(address + size, region.host + region.size)
            if start < end:
                shift = region.guest - region.host
                self._mark((start + shift) // LOG_PAGE_SIZE, (end - 1 + shift) // LOG_PAGE_SIZE)

    def _mark(self, first_page: int, last_page: int) -> None:
        assert self.log_address is not None
        base, self.log_address = self.log_address, None  # the bitmap itself is not guest memory
        try:
            start, end = first_page // 8, last_page // 8 + 1
            bits = bytearray(self.read(base + start, end - start))
            for page in range(first_page, last_page + 1):
                bits[page // 8 - start] |= 1 << page % 8
            self.write(base + start, bytes(bits))
        finally:
            self.log_address = base


def cut(spans: Sequence[Span], size: int) -> tuple[list[Span], list[Span]]:
    """The first `size` bytes of a buffer, and the rest."""
    head: list[Span] = []
    rest = list(spans)
    while rest and size:
        address, length = rest[0]
        part = min(length, size)
        head.append(Span(address, part))
        size -= part
        if part == length:
            rest.pop(0)
        else:
            rest[0] = Span(address + part, length - part)
    return head, rest


def gather(memory: Memory, spans: Sequence[Span]) -> bytes:
    if len(spans) == 1:
        return memory.read(*spans[0])
    return b"".join([memory.read(address, size) for address, size in spans])


def scatter(memory: Memory, spans: Sequence[Span], data: bytes | memoryview) -> None:
    """Write to the start of a buffer that is large enough."""
    if spans[0].size >= len(data):
        memory.write(spans[0].address, data)
        return
    rest = memoryview(data)
    for address, size in spans:
        if not rest:
            break
        memory.write(address, rest[:size])
        rest = rest[size:]
