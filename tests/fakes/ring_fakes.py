"""Stand-ins for a guest's memory and the driver's side of a ring in it."""

from __future__ import annotations

import struct

from firkin.engine.vhost.memory import RingBroken, Span
from firkin.engine.vhost.ring import RingLayout

DESC, AVAIL, USED, BUFFERS = 0x1000, 0x3000, 0x4000, 0x8000
HOST_OFFSET = 0x100000  # QEMU has guest address 0 here

NEXT, WRITE, INDIRECT = 1, 2, 4


class FakeMemory:
    """64 KiB of guest memory."""

    def __init__(self, size: int = 0x10000) -> None:
        self.data = bytearray(size)

    def read(self, address: int, size: int) -> bytes:
        start = self._offset(address, size)
        return bytes(self.data[start : start + size])

    def write(self, address: int, data: bytes | memoryview) -> None:
        start = self._offset(address, len(data))
        self.data[start : start + len(data)] = data

    def spans(self, guest_address: int, size: int) -> list[Span]:
        if not size:
            return []
        self._offset(guest_address + HOST_OFFSET, size)
        return [Span(guest_address + HOST_OFFSET, size)]

    def _offset(self, address: int, size: int) -> int:
        start = address - HOST_OFFSET
        if start < 0 or start + size > len(self.data):
            raise RingBroken(f"{address:#x}")
        return start


class FakeDriver:
    """The guest's side of a ring in a FakeMemory."""

    def __init__(self, memory: FakeMemory, size: int = 8) -> None:
        self.memory = memory
        self.size = size
        self.layout = RingLayout(size, DESC + HOST_OFFSET, AVAIL + HOST_OFFSET, USED + HOST_OFFSET)
        self.index = 0

    def describe(self, number: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        struct.pack_into("<QIHH", self.memory.data, DESC + 16 * number, address, length, flags, following)

    def offer(self, *heads: int) -> None:
        for head in heads:
            struct.pack_into("<H", self.memory.data, AVAIL + 4 + 2 * (self.index % self.size), head)
            self.index = (self.index + 1) & 0xFFFF
        struct.pack_into("<H", self.memory.data, AVAIL + 2, self.index)

    def used(self) -> tuple[int, list[tuple[int, int]]]:
        index = struct.unpack_from("<H", self.memory.data, USED + 2)[0]
        return index, [struct.unpack_from("<II", self.memory.data, USED + 4 + 8 * i) for i in range(self.size)]

    def set_used_event(self, index: int) -> None:
        struct.pack_into("<H", self.memory.data, AVAIL + 4 + 2 * self.size, index)

    def avail_event(self) -> int:
        event: int = struct.unpack_from("<H", self.memory.data, USED + 4 + 8 * self.size)[0]
        return event
