"""Frames through rings: the guest's reach the tap and the tap's reach the guest, at the rate allowed."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ring_fakes import BUFFERS, WRITE, FakeDriver, FakeMemory

from firkin.engine.limiter import Limiter
from firkin.engine.net.counters import Counters
from firkin.engine.net.pump import HEADER_SIZE, Pump
from firkin.engine.vhost.memory import RingBroken
from firkin.engine.vhost.ring import EVENT_IDX, SplitRing
from firkin.engine.vhost.vring import RX, TX, Vring
from firkin.fcapi.limits import RateLimiter, TokenBucket

MAC = bytes.fromhex("060000000001")
ROOM = 0x10000  # where receive buffers lie
STRIDE = 0x400


def frame(text: bytes, source: bytes = MAC) -> bytes:
    return b"\xff" * 6 + source + b"\x08\x00" + text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Stack:
    """Takes frames that say so, and answers what it was given."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.answers: list[bytes] = []
        self.tick_s: float | None = None

    def detour(self, data: memoryview, *, partial_checksum: bool) -> bool:
        if bytes(data[14:18]) != b"mmds":
            return False
        self.taken.append(bytes(data))
        return True

    def poll(self, now_s: float) -> list[bytes]:
        answers, self.answers = self.answers, []
        return answers

    def next_tick_s(self) -> float | None:
        return self.tick_s


class Guest:
    """A driver with two rings, and a socket in place of the tap."""

    def __init__(self, *, rx: RateLimiter | None = None, tx: RateLimiter | None = None) -> None:
        self.clock = Clock()
        self.stack = Stack()
        self.counters = Counters()
        self.host, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.host.setblocking(False)
        tap.setblocking(False)
        self.tap = tap
        self.memory = FakeMemory(0x40000)
        self.rx, self.tx = (FakeDriver(FakeMemory(0x40000), 8) for _ in range(2))
        self.vrings = (self._vring(self.rx, RX), self._vring(self.tx, TX))
        self.pump = Pump(
            self.memory,
            self.vrings,
            tap.fileno(),
            mac=MAC,
            limits=(Limiter(rx, self.clock), Limiter(tx, self.clock)),
            counters=self.counters,
            stack=self.stack,
            clock=self.clock,
        )
        self._sent = self._offered = 0

    @staticmethod
    def _vring(driver: FakeDriver, index: int) -> Vring:
        ring = SplitRing(driver.memory, driver.layout, device_writes=index == RX, features=EVENT_IDX, next_avail=0)
        vring = Vring()
        vring.ring = ring
        return vring

    def close(self) -> None:
        self.host.close()
        self.tap.close()

    def sends(self, data: bytes, *, header: bytes = bytes(HEADER_SIZE)) -> None:
        number, self._sent = self._sent % 8, self._sent + 1
        address = BUFFERS + number * STRIDE
        self.memory.data[address : address + len(header + data)] = header + data
        self.tx.describe(number, address, len(header + data))
        self.tx.offer(number)
        self.pump.kicked(TX)

    def offers(self, size: int, count: int = 1) -> None:
        for _ in range(count):
            number, self._offered = self._offered % 8, self._offered + 1
            self.rx.describe(number, ROOM + number * STRIDE, size, WRITE)
            self.rx.offer(number)
        self.pump.kicked(RX)

    def gets(self, data: bytes) -> None:
        """The host sends a frame, header included as a tap gives it."""
        self.host.send(bytes(HEADER_SIZE) + data)
        self.pump.tap_readable()

    def run(self) -> None:
        for _ in range(20):
            if not self.pump.run_once():
                return
        raise AssertionError("never done")

    def on_the_wire(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.host.recv(70000)[HEADER_SIZE:])
            except BlockingIOError:
                return found

    def received(self) -> list[bytes]:
        """Every frame in the guest's buffers, put together as the headers say."""
        index, used = self.rx.used()
        frames, at = [], 0
        while at < index:
            head, size = used[at % 8]
            data = self._buffer(head, size)
            buffers = struct.unpack_from("<H", data, 10)[0]
            for more in range(1, buffers):
                data += self._buffer(*used[(at + more) % 8])
            frames.append(data[HEADER_SIZE:])
            at += buffers
        return frames

    def _buffer(self, head: int, size: int) -> bytes:
        start = ROOM + head * STRIDE
        return bytes(self.memory.data[start : start + size])


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.close()


def bytes_a_second(size: int, burst: int | None = None) -> RateLimiter:
    return RateLimiter(bandwidth=TokenBucket(size=size, refill_time=1000, one_time_burst=burst))


def test_frames_go_out_whole_and_in_order(guest: Guest) -> None:
    for text in (b"one", b"two", b"three"):
        guest.sends(frame(text))
    guest.run()
    assert guest.on_the_wire() == [frame(text) for text in (b"one", b"two", b"three")]
    assert guest.tx.used()[0] == 3
    assert (guest.counters.tx_packets_count, guest.counters.tx_spoofed_mac_count) == (3, 0)
    assert guest.counters.tx_bytes_count == sum(HEADER_SIZE + len(frame(text)) for text in (b"one", b"two", b"three"))


def test_what_is_no_frame_is_dropped_and_counted(guest: Guest) -> None:
    guest.sends(b"\xff" * 13)
    guest.sends(frame(b"good"))
    guest.run()
    assert guest.on_the_wire() == [frame(b"good")]
    assert guest.counters.tx_malformed_frames == 1
    assert guest.tx.used()[0] == 2


def test_another_mac_is_counted_and_goes_out(guest: Guest) -> None:
    guest.sends(frame(b"x", source=b"\2" * 6))
    guest.run()
    assert len(guest.on_the_wire()) == 1
    assert guest.counters.tx_spoofed_mac_count == 1


def test_a_tap_that_takes_nothing_loses_the_frame(guest: Guest) -> None:
    guest.host.close()
    guest.sends(frame(b"x"))
    guest.run()
    assert (guest.counters.tap_write_fails, guest.counters.tx_packets_count) == (1, 0)
    assert guest.tx.used()[0] == 1


def test_a_frame_comes_in_as_many_buffers_as_it_needs(guest: Guest) -> None:
    guest.offers(100, count=4)
    guest.gets(frame(b"a" * 250))
    guest.gets(frame(b"b"))
    guest.run()
    assert guest.received() == [frame(b"a" * 250), frame(b"b")]
    assert guest.counters.rx_packets_count == 2


def test_too_few_buffers_take_nothing_and_the_frame_waits(guest: Guest) -> None:
    guest.offers(100)
    guest.gets(frame(b"a" * 150))
    guest.run()
    assert guest.rx.used()[0] == 0
    assert guest.counters.no_rx_avail_buffer > 0
    guest.offers(100)
    guest.gets(frame(b"b"))
    guest.run()
    assert guest.received() == [frame(b"a" * 150)]
    guest.offers(100)
    guest.run()
    assert guest.received() == [frame(b"a" * 150), frame(b"b")]


def test_a_guest_of_whole_buffers_must_offer_large_ones(guest: Guest) -> None:
    guest.pump.mergeable = False
    guest.offers(100)
    guest.gets(frame(b"a" * 150))
    with pytest.raises(RingBroken, match="too few"):
        guest.run()


def test_a_limit_holds_frames_back_and_keeps_their_order() -> None:
    size = HEADER_SIZE + len(frame(b"1"))
    guest = Guest(tx=bytes_a_second(2 * size), rx=bytes_a_second(2 * size))
    guest.offers(100, count=5)
    for number in b"123":
        guest.sends(frame(bytes([number])))
        guest.gets(frame(bytes([number])))
    guest.run()
    first = [frame(b"1"), frame(b"2")]
    assert (guest.received(), guest.on_the_wire()) == (first, first)
    assert (guest.counters.tx_rate_limiter_throttled, guest.counters.rx_rate_limiter_throttled) == (1, 1)
    assert guest.pump.patience_s() == pytest.approx(0.5)
    guest.clock.now += 0.5
    guest.run()
    assert (guest.received(), guest.on_the_wire()) == ([*first, frame(b"3")], [frame(b"3")])
    assert guest.pump.patience_s() is None
    guest.close()


def test_changed_limits_count_at_once() -> None:
    guest = Guest(tx=bytes_a_second(1))
    for number in b"12":
        guest.sends(frame(bytes([number])))
    guest.run()
    assert guest.on_the_wire() == [frame(b"1")]  # more than the bucket holds: it passes, and is owed
    guest.pump._limits[TX].update(RateLimiter(bandwidth=TokenBucket(size=0, refill_time=0)))
    guest.pump.unblock()
    guest.run()
    assert guest.on_the_wire() == [frame(b"2")]
    guest.close()


def test_metadata_passes_every_limit_and_never_the_tap() -> None:
    guest = Guest(tx=bytes_a_second(1), rx=bytes_a_second(1))
    guest.offers(200, count=3)
    guest.sends(frame(b"first"))
    guest.gets(frame(b"first"))
    guest.run()
    guest.pump._blocked_until_s[TX] = 0.0
    guest.sends(frame(b"mmds?"))
    guest.stack.answers.append(frame(b"mmds!"))
    guest.run()
    assert guest.stack.taken == [frame(b"mmds?")]
    assert guest.received() == [frame(b"first"), frame(b"mmds!")]
    assert guest.on_the_wire() == [frame(b"first")]
    guest.close()


def test_an_expired_limit_of_a_guest_without_buffers_wakes_nobody() -> None:
    guest = Guest(rx=bytes_a_second(1))
    guest.offers(200)
    guest.gets(frame(b"one"))
    guest.gets(frame(b"two"))
    guest.run()
    guest.stack.answers.append(frame(b"mmds!"))
    guest.run()
    guest.clock.now += 1000
    guest.run()
    assert guest.pump.patience_s() is None
    guest.offers(200, count=2)
    guest.run()
    assert guest.received() == [frame(b"one"), frame(b"mmds!"), frame(b"two")]
    guest.close()


def test_a_stack_that_is_not_asked_wakes_nobody(guest: Guest) -> None:
    guest.stack.answers = [frame(b"mmds!")] * 64
    guest.stack.tick_s = 1.0  # long past
    guest.run()
    assert guest.pump.patience_s() is None
    guest.offers(100, count=8)
    guest.run()
    assert guest.received() == [frame(b"mmds!")] * 8
    assert guest.pump.patience_s() == 0


@given(st.binary(min_size=64, max_size=512), st.integers(0, 65535), st.integers(0, 65535))
def test_no_ring_does_more_than_break(table: bytes, index: int, head: int) -> None:
    guest = Guest()
    try:
        for driver in (guest.tx, guest.rx):
            driver.memory.data[0x1000 : 0x1000 + len(table)] = table
            struct.pack_into("<HHH", driver.memory.data, 0x3000, 0, index, head)
        guest.gets(frame(b"x"))
        guest.pump.kicked(TX)
        guest.pump.kicked(RX)
        for _ in range(3):
            guest.pump.run_once()
    except RingBroken:
        assert index  # an empty ring is never wrong
    finally:
        guest.close()


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=30))
def test_every_frame_arrives_once_and_in_order(texts: list[bytes]) -> None:
    guest = Guest()
    arrived = []
    for text in texts:
        guest.sends(frame(text))
        guest.run()
        arrived += guest.on_the_wire()
    assert arrived == [frame(text) for text in texts]
    assert os.get_blocking(guest.tap.fileno()) is False
    guest.close()
