"""The device's side of a split virtqueue (virtio 1.2, section 2.7). The guest owns every byte it reads, and may lie.

Index words are read and written together with the flags beside them, as aligned 32-bit words, because a copy of two
lone bytes into another process may be torn in the middle. Each access is a system call that takes the other process's
memory lock, which orders it against the ones before and after.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from firkin.engine.vhost.memory import Memory, RingBroken, Span, gather

EVENT_IDX = 1 << 29
INDIRECT_DESC = 1 << 28
NOTIFY_ON_EMPTY = 1 << 24

MAX_INDIRECT = 1024
SINGLE_READS = 4
MAX_CHAIN_SIZE = 1 << 32

_NEXT, _WRITE, _INDIRECT = 1, 2, 4
_NO_INTERRUPT = 1
_DESC = struct.Struct("<QIHH")
_U16 = struct.Struct("<H")
_FLAGS_INDEX = struct.Struct("<HH")
_USED = struct.Struct("<II")


class RingLayout(NamedTuple):
    """Where a ring lies in QEMU's address space, and its number of descriptors (a power of two)."""

    size: int
    desc: int
    avail: int
    used: int


class Chain(NamedTuple):
    """One buffer of the guest: `head` names it when it is given back."""

    head: int
    spans: list[Span]
    size: int


class Batch:
    """The buffers that were available at one moment, parsed one by one as they are taken.

    The first few descriptors are read singly, which suits an answer of one packet; a longer batch copies the table.
    """

    __slots__ = ("_heads", "_ring", "_table", "_taken")

    def __init__(self, ring: SplitRing, heads: Sequence[int]) -> None:
        self._ring = ring
        self._heads = heads
        self._table: bytes | None = None
        self._taken = 0

    def __len__(self) -> int:
        return len(self._heads) - self._taken

    def take(self) -> Chain:
        if self._taken == SINGLE_READS:
            self._table = self._ring.read_table()
        chain = self._ring.parse(self._heads[self._taken], self._table)
        self._taken += 1
        self._ring.next_avail = (self._ring.next_avail + 1) & 0xFFFF
        return chain

    def give_back(self) -> None:
        """The last buffer taken was not used: it will be the next again."""
        self._taken -= 1
        self._ring.next_avail = (self._ring.next_avail - 1) & 0xFFFF


class SplitRing:
    """One queue in one direction: `device_writes` tells which.

    Raises:
        RingBroken: from every method, when indices, lengths, flags or addresses make no sense.
    """

    def __init__(
        self, memory: Memory, layout: RingLayout, *, device_writes: bool, features: int, next_avail: int
    ) -> None:
        self._memory = memory
        self._direction = _WRITE if device_writes else 0
        self._event_idx = bool(features & EVENT_IDX)
        self._indirect = bool(features & INDIRECT_DESC)
        self._notify_on_empty = bool(features & NOTIFY_ON_EMPTY)
        self.layout = layout
        self.next_avail = next_avail
        flags_index = memory.read(layout.used, 4)
        self._next_used: int = _FLAGS_INDEX.unpack(flags_index)[1]
        self._signalled: int | None = None  # after a start the guest is always told
        memory.write(layout.used, _FLAGS_INDEX.pack(0, self._next_used))

    def pending(self, limit: int) -> Batch:
        """What the guest has made available, at most `limit` buffers. Taking them is left to the caller."""
        count = min(self._available(), limit)
        if not count:
            return Batch(self, ())
        size = self.layout.size
        start = self.next_avail % size
        heads = self._heads(start, min(count, size - start))
        if len(heads) < count:
            heads += self._heads(0, count - len(heads))
        return Batch(self, heads)

    def _heads(self, start: int, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}H", self._memory.read(self.layout.avail + 4 + 2 * start, 2 * count))

    def read_table(self) -> bytes:
        return self._memory.read(self.layout.desc, _DESC.size * self.layout.size)

    def _available(self) -> int:
        """How many buffers wait.

        A torn index shows as a changed high byte or as too many buffers: then two reads must agree.
        """
        index = self._avail_index()
        for _ in range(4):
            count = (index - self.next_avail) & 0xFFFF
            if count <= self.layout.size and not (index ^ self.next_avail) & 0xFF00:
                return count
            again = self._avail_index()
            if again == index:
                break
            index = again
        count = (index - self.next_avail) & 0xFFFF
        if count > self.layout.size:
            raise RingBroken(f"ring of {self.layout.size} claims {count} buffers")
        return count

    def _avail_index(self) -> int:
        index: int = _FLAGS_INDEX.unpack(self._memory.read(self.layout.avail, 4))[1]
        return index

    def parse(self, head: int, table: bytes | None) -> Chain:
        """Follow the chain that starts at `head`, in a copy of the descriptor table if there is one."""
        if head >= self.layout.size:
            raise RingBroken(f"descriptor {head} of {self.layout.size}")
        if table is None:
            entry = self._memory.read(self.layout.desc + _DESC.size * head, _DESC.size)
            address, length, flags, _ = _DESC.unpack(entry)
        else:
            address, length, flags, _ = _DESC.unpack_from(table, _DESC.size * head)
        if flags == self._direction:  # neither chained nor indirect: most buffers are
            return Chain(head, self._memory.spans(address, length), length)
        if flags & _INDIRECT:
            spans = self._walk(self._indirect_table(address, length, flags), 0)
        else:
            spans = self._walk(table or self.read_table(), head)
        size = sum(span.size for span in spans)
        if size >= MAX_CHAIN_SIZE:
            raise RingBroken(f"buffer {head} is {size} bytes long")
        return Chain(head, spans, size)

    def _indirect_table(self, guest_address: int, length: int, flags: int) -> bytes:
        count, odd = divmod(length, _DESC.size)
        if not self._indirect or flags & _NEXT or odd or not 0 < count <= MAX_INDIRECT:
            raise RingBroken(f"indirect table of {length} bytes, flags {flags:#x}")
        return gather(self._memory, self._memory.spans(guest_address, length))

    def _walk(self, table: bytes, index: int) -> list[Span]:
        """A chain visits each entry at most once, so the table's length bounds the walk."""
        count = len(table) // _DESC.size
        spans: list[Span] = []
        for _ in range(count):
            if index >= count:
                raise RingBroken(f"descriptor {index} in a table of {count}")
            address, length, flags, following = _DESC.unpack_from(table, _DESC.size * index)
            if flags & _INDIRECT or flags & _WRITE != self._direction:
                raise RingBroken(f"descriptor {index} has flags {flags:#x}")
            spans += self._memory.spans(address, length)
            if not flags & _NEXT:
                return spans
            index = following
        raise RingBroken(f"descriptor chain longer than its table of {count}")

    def complete(self, used: Sequence[tuple[int, int]]) -> bool:
        """Give buffers back as (head, bytes written). True when the guest wants an interrupt."""
        if not used:
            return False
        start = self._next_used % self.layout.size
        elements = b"".join([_USED.pack(head, written) for head, written in used])
        room = (self.layout.size - start) * _USED.size
        ring = self.layout.used + 4
        self._memory.write(ring + start * _USED.size, elements[:room])
        if len(elements) > room:
            self._memory.write(ring, elements[room:])
        self._next_used = (self._next_used + len(used)) & 0xFFFF
        self._memory.write(self.layout.used, _FLAGS_INDEX.pack(0, self._next_used))
        return self._wants_interrupt()

    def _wants_interrupt(self) -> bool:
        before, self._signalled = self._signalled, self._next_used
        if self._notify_on_empty and not self._available():
            return True
        if not self._event_idx:
            flags: int = _FLAGS_INDEX.unpack(self._memory.read(self.layout.avail, 4))[0]
            return not flags & _NO_INTERRUPT
        if before is None:
            return True
        event: int = _U16.unpack(self._memory.read(self.layout.avail + 4 + 2 * self.layout.size, 2))[0]
        return (self._next_used - event - 1) & 0xFFFF < (self._next_used - before) & 0xFFFF

    def await_kick(self, unused: int = 0) -> bool:
        """Ask for a kick at the next buffer after `unused` ones that are there and too few for anything.

        False when one came in the meantime, and no kick will tell.
        """
        if self._event_idx:
            event = (self.next_avail + unused) & 0xFFFF
            self._memory.write(self.layout.used + 4 + _USED.size * self.layout.size, _U16.pack(event))
        return self._available() <= unused
