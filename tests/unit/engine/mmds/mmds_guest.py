"""A guest's side of the wire, written on its own terms: just enough TCP to hold a conversation over a bad line."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from firkin.engine.mmds.stack import NetworkStack

MAC = bytes.fromhex("020000000001")
SERVICE_MAC = bytes.fromhex("060123456701")
ADDRESS = bytes((172, 16, 0, 2))
SERVICE = bytes((169, 254, 169, 254))
FIN, SYN, RST, ACK = 1, 2, 4, 16
STEP_S = 0.1

Line = Callable[[list[bytes]], list[bytes]]


def ones_sum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ip(payload: bytes, *, protocol: int = 6, source: bytes = ADDRESS, target: bytes = SERVICE, flags: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, flags, 64, protocol, 0, source, target)
    head = head[:10] + struct.pack("!H", ~ones_sum(head) & 0xFFFF) + head[12:]
    return SERVICE_MAC + MAC + b"\x08\x00" + head + payload


def tcp(
    flags: int,
    seq: int,
    ack: int = 0,
    payload: bytes = b"",
    *,
    port: int = 40000,
    target_port: int = 80,
    window: int = 64240,
    options: bytes = b"",
    checksum: int | None = None,
) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack("!HHIIBBHHH", port, target_port, seq % 2**32, ack % 2**32, offset, flags, window, 0, 0) + options
    pseudo = ADDRESS + SERVICE + struct.pack("!HH", 6, len(head) + len(payload))
    if checksum is None:
        checksum = ~ones_sum(pseudo + head + payload) & 0xFFFF
    return ip(head[:16] + struct.pack("!H", checksum) + head[18:] + payload)


def arp_request(target: bytes = SERVICE) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + MAC + ADDRESS + bytes(6) + target
    return b"\xff" * 6 + MAC + b"\x08\x06" + body


class Heard:
    """A frame of the service, taken apart; its checksums must be right."""

    def __init__(self, frame: bytes) -> None:
        assert frame[:14] == MAC + SERVICE_MAC + b"\x08\x00"
        head, data = frame[14:34], frame[34:]
        assert ones_sum(head) == 0xFFFF
        assert head[12:] == SERVICE + ADDRESS
        assert struct.unpack("!H", head[2:4]) == (len(frame) - 14,)
        assert ones_sum(SERVICE + ADDRESS + struct.pack("!HH", 6, len(data)) + data) == 0xFFFF
        self.source_port, self.port, self.seq, self.ack, offset, self.flags, self.window = struct.unpack(
            "!HHIIBBH", data[:16]
        )
        self.options = data[20 : (offset >> 4) * 4]
        self.payload = data[(offset >> 4) * 4 :]


class Client:
    """Sends requests one after the other and collects what comes back, going on where a frame was lost."""

    def __init__(self, stack: NetworkStack, *, port: int = 40000, line: Line = list, seq: int = 2**32 - 100) -> None:
        self.stack, self.port = stack, port
        self.received = b""
        self.connected = self.ended = self.refused = False
        self.now_s = 100.0
        self._line = line
        self._acked, self._next = seq, 0  # ours that is acknowledged; the service's that comes next
        self._unsent = b""
        self._closing = False

    def connect(self) -> None:
        self._until(lambda: self.connected or self.refused)

    def send(self, data: bytes) -> None:
        self._unsent += data
        self._until(lambda: not self._unsent or self.refused)

    def await_bytes(self, size: int) -> bytes:
        self._until(lambda: len(self.received) >= size or self.refused)
        return self.received

    def close(self) -> None:
        self._closing = True
        self._until(lambda: self.ended or self.refused)

    def _until(self, reached: Callable[[], bool]) -> None:
        for _ in range(1500):
            if reached():
                return
            self._exchange(self._to_send())
            self.now_s += STEP_S
        raise AssertionError(f"no end: {len(self.received)} bytes came, {len(self._unsent)} are left")

    def _to_send(self) -> list[bytes]:
        if not self.connected:
            return [tcp(SYN, self._acked, port=self.port, options=struct.pack("!BBH", 2, 4, 1460))]
        flags = ACK | (FIN if self._closing and not self._unsent else 0)
        return [self._frame(flags, self._unsent[:1400])]

    def _frame(self, flags: int, payload: bytes = b"") -> bytes:
        return tcp(flags, self._acked, self._next, payload, port=self.port)

    def _exchange(self, out: Iterable[bytes]) -> None:
        for frame in self._line(list(out)):
            assert self.stack.detour(frame, partial_checksum=False)
        while frames := self._line(self.stack.poll(self.now_s)):
            answers = [self._frame(ACK) for frame in frames if self._take(Heard(frame))]
            for frame in self._line(answers):
                assert self.stack.detour(frame, partial_checksum=False)

    def _take(self, heard: Heard) -> bool:
        """Note what came; whether it has to be acknowledged."""
        if heard.port != self.port:
            return False
        if heard.flags & RST:
            self.refused = True
            return False
        if heard.flags & SYN:
            if not self.connected:
                self.connected, self._acked, self._next = True, self._acked + 1, heard.seq + 1
            return True
        acked = (heard.ack - self._acked) % 2**32
        if acked <= len(self._unsent) + self._closing:
            self._unsent = self._unsent[acked:]
            self._acked += acked
        if heard.seq == self._next % 2**32:
            self.received += heard.payload
            self._next += len(heard.payload) + (heard.flags & FIN)
            self.ended = self.ended or bool(heard.flags & FIN)
        return bool(heard.payload) or bool(heard.flags & FIN)
