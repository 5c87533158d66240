"""The packet header on the wire, and the greeting before any packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.vsock import greeting, packet
from firkin.engine.vsock.packet import Header, MalformedPacket, Packet

WIRE = bytes.fromhex(
    "0300000000000000 0200000000000000 34120000 e9030000 05000000 0100 0500 02000000 00000100 07000000".replace(" ", "")
)


def test_header_is_read_field_by_field() -> None:
    assert packet.parse(WIRE, 49) == Header(3, 2, 0x1234, 1001, 5, 1, packet.RW, 2, 65536, 7)


def test_packet_carries_the_length_of_its_part() -> None:
    data = Packet(1001, 0x1234, packet.RW, buf_alloc=65536, fwd_cnt=7, payload=b"hello").pack(3, b"hel")
    assert packet.parse(data, len(data)) == Header(2, 3, 1001, 0x1234, 3, 1, packet.RW, 0, 65536, 7)
    assert data[packet.HEADER_SIZE :] == b"hel"


@pytest.mark.parametrize(("data", "available"), [(WIRE[:43], 43), (b"", 0), (WIRE, 48)])
def test_short_packet_is_malformed(data: bytes, available: int) -> None:
    with pytest.raises(MalformedPacket):
        packet.parse(data, available)


def test_packet_above_64_kib_is_malformed() -> None:
    large = Header(*packet.parse(WIRE, 49))._replace(length=packet.MAX_PAYLOAD + 1)
    with pytest.raises(MalformedPacket, match="65537"):
        packet.parse(packet._LAYOUT.pack(*large), 1 << 20)


@given(st.binary(max_size=60), st.integers(0, 100))
def test_any_bytes_are_a_header_or_malformed(data: bytes, available: int) -> None:
    try:
        header = packet.parse(data, available)
    except MalformedPacket:
        return
    assert header.length <= available - packet.HEADER_SIZE


@pytest.mark.parametrize(
    ("data", "port", "size"),
    [(b"CONNECT 52\n", 52, 11), (b"connect 0\nrest", 0, 10), (b"Connect  4294967295\r\n", 2**32 - 1, 21)],
)
def test_greeting_names_a_port(data: bytes, port: int, size: int) -> None:
    assert greeting.parse(data) == (port, size)


def test_greeting_may_come_in_pieces() -> None:
    assert greeting.parse(b"CONNECT 5") is None


@pytest.mark.parametrize(
    "data", [b"HELLO 1\n", b"CONNECT\n", b"CONNECT -1\n", b"CONNECT 4294967296\n", b"\n", b"x" * 32]
)
def test_anything_else_is_no_greeting(data: bytes) -> None:
    with pytest.raises(greeting.BadGreeting):
        greeting.parse(data)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_greeting_or_refused(data: bytes) -> None:
    try:
        found = greeting.parse(data)
    except greeting.BadGreeting:
        return
    assert found is None or 0 <= found[0] <= greeting.MAX_PORT
