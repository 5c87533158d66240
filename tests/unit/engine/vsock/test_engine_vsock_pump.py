"""Packets through rings: what the guest writes, what it gets, and how much is done at a time."""

from __future__ import annotations

import pytest
from ring_fakes import BUFFERS, NEXT, WRITE, FakeDriver, FakeMemory
from vsock_fakes import FakeStream

from firkin.engine.vhost.memory import RingBroken
from firkin.engine.vhost.ring import EVENT_IDX, SplitRing
from firkin.engine.vhost.vring import RX, TX, Vring
from firkin.engine.vsock import packet
from firkin.engine.vsock.muxer import MAX_RESETS, Muxer
from firkin.engine.vsock.packet import HEADER_SIZE, Header
from firkin.engine.vsock.pump import Pump


class Guest:
    """A driver with two rings; each lies in a memory of its own, beside the buffers."""

    def __init__(self) -> None:
        self.streams: dict[int, FakeStream] = {}
        self.muxer = Muxer(3, lambda connection: self.streams[connection.host_port])
        self.memory = FakeMemory(0x40000)
        self.rx, self.tx = (FakeDriver(FakeMemory(0x40000), 8) for _ in range(2))
        self.vrings = (self._vring(self.rx, RX), self._vring(self.tx, TX))
        self.pump = Pump(self.memory, self.vrings, self.muxer)
        self._sent = 0

    @staticmethod
    def _vring(driver: FakeDriver, index: int) -> Vring:
        ring = SplitRing(driver.memory, driver.layout, device_writes=index == RX, features=EVENT_IDX, next_avail=0)
        vring = Vring()
        vring.ring = ring
        return vring

    def sends(self, op: int, payload: bytes = b"", *, host_port: int = 52, guest_port: int = 4000) -> None:
        header = Header(3, 2, guest_port, host_port, len(payload), 1, op, 0, 1 << 18, 0)
        data = header.pack() + payload
        number = self._sent % 8
        self._sent += 1
        address = BUFFERS + number * 0x400
        self.memory.data[address : address + len(data)] = data
        self.tx.describe(number, address, len(data))
        self.tx.offer(number)
        self.pump.kicked(TX)

    def offers(self, number: int, *sizes: int) -> None:
        """A receive buffer of one or more pieces."""
        for at, size in enumerate(sizes):
            more = NEXT if at + 1 < len(sizes) else 0
            self.rx.describe(number + at, 0x10000 + (number + at) * 0x2000, size, WRITE | more, number + at + 1)
        self.rx.offer(number)
        self.pump.kicked(RX)

    def received(self, number: int, size: int) -> bytes:
        start = 0x10000 + number * 0x2000
        return bytes(self.memory.data[start : start + size])

    def run(self) -> None:
        for _ in range(1000):
            if not self.pump.run_once(0):
                return
        raise AssertionError("the pump never rests")


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_guests_packet_reaches_the_host_and_its_buffer_comes_back(guest: Guest) -> None:
    guest.streams[52] = FakeStream()
    guest.sends(packet.REQUEST)
    guest.sends(packet.RW, b"hello")
    guest.run()
    assert guest.streams[52].outbox == b"hello"
    assert guest.tx.used()[0] == 2


def test_malformed_packet_is_dropped_and_its_buffer_comes_back(guest: Guest) -> None:
    guest.tx.describe(0, BUFFERS, 20)
    guest.tx.offer(0)
    guest.run()
    assert guest.tx.used()[0] == 1
    assert not guest.muxer.has_packets()


def test_answer_waits_for_a_buffer(guest: Guest) -> None:
    guest.sends(packet.RW, b"to nobody")
    guest.run()
    guest.offers(0, 100)
    guest.run()
    assert packet.parse(guest.received(0, HEADER_SIZE), 100).op == packet.RST
    assert guest.rx.used()[1][0] == (0, HEADER_SIZE)


def test_data_is_split_over_small_buffers(guest: Guest) -> None:
    stream = guest.streams[52] = FakeStream()
    guest.sends(packet.REQUEST)
    guest.offers(0, 100)
    guest.run()
    stream.inbox += bytes(range(200))
    guest.muxer.on_stream(guest.muxer._connections[52, 4000], readable=True, writable=False)
    for number, size in ((1, 144), (2, 60), (3, 200)):
        guest.offers(number, size)
    guest.run()
    lengths = [packet.parse(guest.received(number, HEADER_SIZE), 1000).length for number in (1, 2, 3)]
    assert lengths == [100, 16, 84]
    parts = [guest.received(number, 44 + length)[44:] for number, length in zip((1, 2, 3), lengths, strict=True)]
    assert b"".join(parts) == bytes(range(200))


def test_rest_of_a_packet_waits_for_more_buffers(guest: Guest) -> None:
    stream = guest.streams[52] = FakeStream()
    guest.sends(packet.REQUEST)
    guest.offers(0, 100)
    guest.run()
    stream.inbox += b"abcdef"
    guest.muxer.on_stream(guest.muxer._connections[52, 4000], readable=True, writable=False)
    guest.offers(1, 48)
    guest.run()
    assert guest.received(1, 48)[44:] == b"abcd"
    guest.offers(2, 48)
    guest.run()
    assert guest.received(2, 46)[44:] == b"ef"


def test_buffer_of_several_pieces_is_filled_across_them(guest: Guest) -> None:
    guest.sends(packet.RW, b"to nobody")
    guest.offers(0, 10, 30, 20)
    guest.run()
    whole = guest.received(0, 10) + guest.received(1, 30) + guest.received(2, 4)
    assert packet.parse(whole, HEADER_SIZE).op == packet.RST


def test_receive_buffer_without_room_for_data_breaks_the_ring(guest: Guest) -> None:
    guest.sends(packet.RW, b"to nobody")
    guest.offers(0, HEADER_SIZE)
    with pytest.raises(RingBroken, match="too small"):
        guest.run()


def test_guest_that_reads_no_resets_is_not_served(guest: Guest) -> None:
    for port in range(MAX_RESETS + 50):
        guest.sends(packet.RW, guest_port=port)
        guest.run()
        if guest.tx.used()[0] <= port:
            break
    assert guest.tx.used()[0] == MAX_RESETS
    for number in range(8):
        guest.offers(number, 100)
    guest.run()
    assert guest.tx.used()[0] == MAX_RESETS + 1
