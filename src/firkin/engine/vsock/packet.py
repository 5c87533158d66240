"""The virtio-vsock packet header (virtio 1.2, section 5.10.6), as values. No I/O."""

from __future__ import annotations

import struct
from typing import NamedTuple

from firkin.errors import GuestError

HEADER_SIZE = 44
MAX_PAYLOAD = 64 * 1024
HOST_CID = 2
STREAM = 1

REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)

NO_MORE_RECEIVE = 1
NO_MORE_SEND = 2
BOTH_WAYS = NO_MORE_RECEIVE | NO_MORE_SEND

_LAYOUT = struct.Struct("<QQIIIHHIII")


class MalformedPacket(GuestError):
    """The guest sent bytes that are no packet of its own."""


class Header(NamedTuple):
    """Field for field as on the wire."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    length: int
    type: int
    op: int
    flags: int
    buf_alloc: int
    fwd_cnt: int

    def pack(self) -> bytes:
        return _LAYOUT.pack(*self)


def parse(data: bytes, available: int) -> Header:
    """Read the header of a packet that came from the guest, in a buffer of `available` bytes.

    Raises:
        MalformedPacket: too short, or it announces more payload than it has or than a packet may carry.
    """
    if len(data) < HEADER_SIZE:
        raise MalformedPacket(f"vsock packet of {len(data)} bytes: shorter than its header")
    header = Header._make(_LAYOUT.unpack_from(data))
    if header.length > min(MAX_PAYLOAD, available - HEADER_SIZE):
        raise MalformedPacket(f"vsock packet announces {header.length} bytes in a buffer of {available}")
    return header


class Packet(NamedTuple):
    """One packet for the guest, before it is cut to the size of the guest's buffers."""

    host_port: int
    guest_port: int
    op: int
    flags: int = 0
    buf_alloc: int = 0
    fwd_cnt: int = 0
    payload: bytes = b""

    def pack(self, guest_cid: int, part: bytes | memoryview) -> bytes:
        """The packet on the wire with this part of its payload."""
        return b"".join(
            (
                _LAYOUT.pack(
                    HOST_CID,
                    guest_cid,
                    self.host_port,
                    self.guest_port,
                    len(part),
                    STREAM,
                    self.op,
                    self.flags,
                    self.buf_alloc,
                    self.fwd_cnt,
                ),
                part,
            )
        )
