"""Moves frames between a guest's two rings and a tap, a bounded amount at a time, as fast as the limits allow.

On both sides a frame begins with a virtio-net header of twelve bytes, so checksums and segmentation pass through.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from firkin.engine.limiter import Limiter
from firkin.engine.net.counters import Counters
from firkin.engine.vhost.memory import Memory, RingBroken, gather, scatter
from firkin.engine.vhost.ring import Batch, Chain, SplitRing
from firkin.engine.vhost.vring import RX, TX, Vring

BATCH = 64
HEADER_SIZE = 12
MIN_FRAME = 14
MAX_SIZE = 65562  # as upstream: header, Ethernet and a segment of 64 KiB

_NEEDS_CHECKSUM = 1
_BUFFERS = struct.Struct("<H")
_BUFFERS_AT = 10
_NO_HEADER = bytes(HEADER_SIZE)

Frame = bytearray | memoryview
"""Header and frame, writable: the header says how many of the guest's buffers it fills."""


class Stack(Protocol):
    """The seam to the metadata service, which takes some of the guest's frames and answers with its own."""

    def detour(self, frame: memoryview, *, partial_checksum: bool) -> bool: ...
    def poll(self, now_s: float) -> list[bytes]: ...
    def next_tick_s(self) -> float | None: ...


class Pump:
    """Serves the rings of a running interface. RingBroken leaves every method when they are unusable."""

    def __init__(
        self,
        memory: Memory,
        vrings: tuple[Vring, Vring],
        tap: int,
        *,
        mac: bytes | None,
        limits: tuple[Limiter, Limiter],
        counters: Counters,
        stack: Stack | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limits` are for RX and TX. `tap` never blocks."""
        self._memory = memory
        self._vrings = vrings
        self._tap = tap
        self._mac = mac
        self._limits = limits
        self._count = counters
        self._stack = stack
        self._clock = clock
        self.mergeable = True  # whether the guest takes a frame in several buffers
        self._buffer = bytearray(MAX_SIZE)
        self._waiting: deque[Frame] = deque()  # frames that the limit has let pass, or that are not the tap's
        self._held: Frame | None = None  # read from the tap, and waiting for its limit
        self._ready = [True, True]
        self._tap_ready = True
        self._blocked_until_s = [0.0, 0.0]

    def kicked(self, index: int) -> None:
        self._ready[index] = True
        if index == RX:
            self._count.rx_queue_event_count += 1
        else:
            self._count.tx_queue_event_count += 1

    def tap_readable(self) -> None:
        self._tap_ready = True
        self._count.rx_tap_event_count += 1

    def unblock(self) -> None:
        """The limits have changed."""
        self._blocked_until_s = [0.0, 0.0]

    def run_once(self) -> bool:
        """Serve both rings for a while. True when there is more to do without waiting for anyone."""
        now_s = self._clock()
        more = self._ready[TX] and self._may(TX, now_s) and self._serve_tx()
        # Not while the guest takes nothing: each repetition would add to what waits.
        if self._stack is not None and len(self._waiting) < BATCH:
            self._waiting.extend(bytearray(_NO_HEADER + frame) for frame in self._stack.poll(now_s))
        if self._ready[RX] and ((self._may(RX, now_s) and self._has_input()) or self._waiting):
            more |= self._serve_rx()
        return more

    def _has_input(self) -> bool:
        return self._tap_ready or self._held is not None

    def patience_s(self) -> float | None:
        """How long to wait for events: until a limit or the metadata service lets something happen."""
        now_s = self._clock()
        # A ring that waits for a kick has nothing to wake up for, nor has a stack that is not asked.
        blocked = zip(self._blocked_until_s, self._ready, strict=True)
        waits_s = [until_s - now_s for until_s, ready in blocked if until_s and ready]
        polled = self._stack if len(self._waiting) < BATCH else None
        if polled is not None and (tick_s := polled.next_tick_s()) is not None:
            waits_s.append(tick_s - now_s)
        return max(0.0, min(waits_s)) if waits_s else None

    def _may(self, index: int, now_s: float) -> bool:
        if now_s < self._blocked_until_s[index]:
            return False
        self._blocked_until_s[index] = 0.0
        return True

    def _wait(self, index: int, size: int) -> bool:
        """Whether one more frame has to wait for its limit."""
        wait_s = self._limits[index].consume(size)
        if wait_s:
            self._blocked_until_s[index] = self._clock() + wait_s
            if index == RX:
                self._count.rx_rate_limiter_throttled += 1
            else:
                self._count.tx_rate_limiter_throttled += 1
        return wait_s > 0

    # --- guest to tap

    def _serve_tx(self) -> bool:
        ring = _running(self._vrings[TX])
        batch = ring.pending(BATCH)
        if not batch:
            self._ready[TX] = not ring.await_kick()
            return self._ready[TX]
        used: list[tuple[int, int]] = []
        while batch:
            chain = batch.take()
            if not self._send(chain):
                batch.give_back()
                break
            used.append((chain.head, 0))
        self._complete(TX, ring, used)
        return not self._blocked_until_s[TX]

    def _send(self, chain: Chain) -> bool:
        """Pass one frame on. False when it has to wait."""
        if not HEADER_SIZE + MIN_FRAME <= chain.size <= MAX_SIZE:
            self._count.tx_malformed_frames += 1
            return True
        data = gather(self._memory, chain.spans)
        # What goes to the metadata service never reaches the network, and no limit applies to it.
        if self._stack is not None and self._stack.detour(
            memoryview(data)[HEADER_SIZE:], partial_checksum=bool(data[0] & _NEEDS_CHECKSUM)
        ):
            return True
        if self._wait(TX, len(data)):
            return False
        self._write(data)
        return True

    def _write(self, data: bytes) -> None:
        count = self._count
        if self._mac is not None and data[HEADER_SIZE + 6 : HEADER_SIZE + 12] != self._mac:
            count.tx_spoofed_mac_count += 1
        try:
            os.write(self._tap, data)
        except OSError:  # the tap is down, or the guest's header makes no sense: the frame is lost, as on a wire
            count.tap_write_fails += 1
            count.tx_fails += 1
            return
        count.tx_bytes_count += len(data)
        count.tx_packets_count += 1
        count.tx_count += 1

    # --- tap to guest

    def _serve_rx(self) -> bool:
        ring = _running(self._vrings[RX])
        batch = ring.pending(ring.layout.size)
        used: list[tuple[int, int]] = []
        while (frame := self._next_frame()) is not None:
            if not self._fill(batch, frame, used):
                self._waiting.appendleft(bytearray(frame))
                self._count.no_rx_avail_buffer += 1
                break
        self._complete(RX, ring, used)
        if frame is None:
            return False
        if not used:  # not even room for one
            self._ready[RX] = not ring.await_kick(len(batch))
        return self._ready[RX]

    def _next_frame(self) -> Frame | None:
        if self._waiting:
            return self._waiting.popleft()
        if self._blocked_until_s[RX]:
            return None
        frame, self._held = self._held or self._read(), None
        if frame is not None and self._wait(RX, len(frame)):
            self._held = bytearray(frame)
            return None
        return frame

    def _read(self) -> Frame | None:
        if not self._tap_ready:
            return None
        try:
            size = os.readv(self._tap, [self._buffer])
        except OSError as error:
            self._tap_ready = False
            self._count.tap_read_fails += error.errno != errno.EAGAIN  # down, or gone
            return None
        return memoryview(self._buffer)[:size]

    def _fill(self, batch: Batch, frame: Frame, used: list[tuple[int, int]]) -> bool:
        """Write a frame into as many buffers as it needs. False, and nothing is taken, when there are too few."""
        chains = self._take(batch, len(frame))
        if chains is None:
            return False
        _BUFFERS.pack_into(frame, _BUFFERS_AT, len(chains))
        rest = memoryview(frame)
        for chain in chains:
            part, rest = rest[: chain.size], rest[chain.size :]
            scatter(self._memory, chain.spans, part)
            used.append((chain.head, len(part)))
        self._count.rx_bytes_count += len(frame)
        self._count.rx_packets_count += 1
        self._count.rx_count += 1
        return True

    def _take(self, batch: Batch, size: int) -> list[Chain] | None:
        """Buffers for `size` bytes, or none at all. Raises: RingBroken, where one must do and does not."""
        chains: list[Chain] = []
        while size > 0 and batch:
            chains.append(batch.take())
            size -= chains[-1].size
            if size > 0 and not self.mergeable:
                raise RingBroken(f"receive buffer of {chains[-1].size} bytes: {size} too few for a frame")
        if size > 0:
            for _ in chains:
                batch.give_back()
            return None
        return chains

    def _complete(self, index: int, ring: SplitRing, used: list[tuple[int, int]]) -> None:
        if ring.complete(used):
            self._vrings[index].signal("call")


def _running(vring: Vring) -> SplitRing:
    assert vring.ring is not None, "served while stopped"
    return vring.ring
