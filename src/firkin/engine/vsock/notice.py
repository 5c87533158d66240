"""When a restored guest can be called.

QEMU tells its driver by an event that the transport is new, and when the driver takes it, it resets all connections:
also one that it has accepted just before. Then it offers the event's buffer again, which shows in the ring's index.
"""

from __future__ import annotations

import struct
import time

from firkin.engine.vhost.memory import Memory, RingBroken, gather

EVENT_QUEUE = 2
PATIENCE_S = 5.0  # a guest that offered no buffer never takes one

_FLAGS_INDEX = struct.Struct("<HH")


class Notice:
    """On its way to a guest that is about to run."""

    def __init__(self, memory: Memory, ring: int, *, patience_s: float = PATIENCE_S) -> None:
        """`ring` is the guest address of the event queue's available ring. Raises: RingBroken."""
        self._memory = memory
        self._place = memory.spans(ring, _FLAGS_INDEX.size)
        self._index = self._read()
        self._give_up_at_s = time.monotonic() + patience_s

    def is_over(self) -> bool:
        """Whether the guest took it, or is not going to."""
        try:
            return self._read() != self._index or time.monotonic() >= self._give_up_at_s
        except RingBroken:
            return True

    def _read(self) -> int:
        index: int = _FLAGS_INDEX.unpack(gather(self._memory, self._place))[1]
        return index
