"""Ethernet, ARP, IPv4 and TCP as far as the service needs them: bytes of a guest to values, values to frames. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

from firkin.errors import GuestError

MAC = bytes.fromhex("060123456701")
ARP, IPV4 = b"\x08\x06", b"\x08\x00"
ETHERNET_SIZE, IP_SIZE, TCP_SIZE = 14, 20, 20
TCP = 6
FIN, SYN, RST, ACK = 1, 2, 4, 16
DEFAULT_MSS = 536
_ARP_SIZE = 28
_ARP_REQUEST = bytes.fromhex("0001 0800 06 04 0001")
_ARP_REPLY = bytes.fromhex("0001 0800 06 04 0002")
_FRAGMENT = 0x3FFF  # more fragments, or an offset
_DONT_FRAGMENT = 0x4000
_IP = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")


class Malformed(GuestError):
    """Bytes that are no packet, or whose checksum is wrong."""


class Packet(NamedTuple):
    """One IPv4 packet and who sent it."""

    mac: bytes
    source: bytes
    protocol: int
    payload: bytes


class Segment(NamedTuple):
    """One TCP segment. Sequence numbers are modulo 2**32, as on the wire."""

    source_port: int
    target_port: int
    seq: int
    ack: int
    flags: int
    window: int
    mss: int = DEFAULT_MSS  # of a SYN
    payload: bytes = b""

    @property
    def size(self) -> int:
        """How much of the sequence it takes."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071): 0 over data that includes its own."""
    if len(data) % 2:
        data += b"\0"
    return 0xFFFF - (int.from_bytes(data, "big") % 0xFFFF or 0xFFFF)


def arp_reply(frame: bytes, address: bytes) -> bytes | None:
    """The answer to a request that asks who has `address`; None if it is no such request."""
    request = frame[ETHERNET_SIZE : ETHERNET_SIZE + _ARP_SIZE]
    if len(request) < _ARP_SIZE or request[:8] != _ARP_REQUEST or request[24:] != address:
        return None
    asker = request[8:18]  # MAC and address
    return asker[:6] + MAC + ARP + _ARP_REPLY + MAC + address + asker


def parse_ip(frame: bytes) -> Packet:
    """Read the packet in an Ethernet frame of type IPv4. Raises: Malformed."""
    if len(frame) < ETHERNET_SIZE + IP_SIZE:
        raise Malformed("shorter than an IPv4 header")
    fields = _IP.unpack_from(frame, ETHERNET_SIZE)
    size, total = (fields[0] & 15) * 4, fields[2]
    data = frame[ETHERNET_SIZE:]
    if fields[0] >> 4 != 4 or not IP_SIZE <= size <= total <= len(data):
        raise Malformed("lengths that do not fit each other")
    if fields[4] & _FRAGMENT:
        raise Malformed("a fragment")
    if checksum(data[:size]):
        raise Malformed("IPv4 checksum")
    return Packet(frame[6:12], fields[8], fields[6], data[size:total])


def parse_tcp(packet: Packet, target: bytes, *, partial_checksum: bool) -> Segment:
    """Read the segment in a packet. With `partial_checksum` the sender left the checksum to its network card.

    Raises:
        Malformed: lengths, options or checksum are wrong.
    """
    data = packet.payload
    if len(data) < TCP_SIZE:
        raise Malformed("shorter than a TCP header")
    source_port, target_port, seq, ack, offset, flags, window, _, _ = _TCP.unpack_from(data)
    size = (offset >> 4) * 4
    if not TCP_SIZE <= size <= len(data):
        raise Malformed("a TCP header of no possible size")
    if not partial_checksum and checksum(_pseudo_header(packet.source, target, len(data)) + data):
        raise Malformed("TCP checksum")
    mss = _mss(data[TCP_SIZE:size]) if flags & SYN else DEFAULT_MSS
    return Segment(source_port, target_port, seq, ack, flags & (FIN | SYN | RST | ACK), window, mss, data[size:])


def build(segment: Segment, source: bytes, mac: bytes, target: bytes) -> bytes:
    """A segment of ours as a frame for the guest. Only a SYN tells our MSS."""
    options = struct.pack("!BBH", 2, 4, segment.mss) if segment.flags & SYN else b""
    offset = (TCP_SIZE + len(options)) // 4 << 4
    ports = (segment.source_port, segment.target_port, segment.seq, segment.ack)
    head = _TCP.pack(*ports, offset, segment.flags, segment.window, 0, 0) + options
    total = len(head) + len(segment.payload)
    sum_ = checksum(_pseudo_header(source, target, total) + head + segment.payload)
    head = head[:16] + sum_.to_bytes(2, "big") + head[18:]
    return mac + MAC + IPV4 + _ip_header(source, target, IP_SIZE + total) + head + segment.payload


def _ip_header(source: bytes, target: bytes, total: int) -> bytes:
    header = _IP.pack(0x45, 0, total, 0, _DONT_FRAGMENT, 64, TCP, 0, source, target)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:]


def _pseudo_header(source: bytes, target: bytes, size: int) -> bytes:
    return source + target + bytes((0, TCP)) + size.to_bytes(2, "big")


def _mss(options: bytes) -> int:
    """The MSS option of a SYN. Raises: Malformed."""
    place = 0
    while place < len(options) and (kind := options[place]) != 0:
        if kind == 1:  # padding
            place += 1
            continue
        size = options[place + 1] if place + 1 < len(options) else 0
        if size < 2 or place + size > len(options) or (kind == 2 and size != 4):
            raise Malformed("TCP options")
        if kind == 2:
            return int.from_bytes(options[place + 2 : place + 4], "big")
        place += size
    return DEFAULT_MSS
