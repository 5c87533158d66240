"""Frames of the agent's protocol: bytes in, frames out. No I/O, so that client and tests share it.

docs/agent-protocol.md describes the wire; guest/src/frames.h is its mirror.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from firkin.errors import AgentError

HEADER = struct.Struct("<HBBII")  # magic, type, flags, stream, length of the payload
MAGIC = 0x4B46
MAX_PAYLOAD = 65536
VERSION = 2

EXEC_TTY = 1
EXEC_STDIN = 2
EXEC_KEPT = 4
STDIN_EOF = 1


class Kind(IntEnum):
    """What a frame is; the value is on the wire."""

    HELLO = 1
    HELLO_ACK = 2
    EXEC = 3
    STARTED = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7
    WINDOW = 8
    WINSIZE = 9
    SIGNAL = 10
    EXIT = 11
    POWEROFF = 12
    REBOOT = 13
    SYNC = 14
    OK = 15
    ERROR = 16
    TASK = 17
    DIAL = 18
    ATTACH = 19
    DETACH = 20
    KEPT = 21
    IDENTITY = 22


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; `stream` is 0 where it belongs to the connection as a whole."""

    kind: Kind
    payload: bytes = b""
    stream: int = 0
    flags: int = 0

    def encode(self) -> bytes:
        """The frame as it goes over the wire.

        Raises:
            AgentError: the payload is longer than a frame may be.
        """
        if len(self.payload) > MAX_PAYLOAD:
            raise AgentError(
                f"{self.kind.name}: {len(self.payload)} bytes do not fit in a frame of {MAX_PAYLOAD}",
                hint="shorten arguments and environment, or send the data on stdin",
            )
        return HEADER.pack(MAGIC, self.kind, self.flags, self.stream, len(self.payload)) + self.payload


class FrameReader:
    """Cuts a byte stream into frames, however it was split on the way.

    Holds one frame at most beyond what `feed` has yielded. After a fault it yields nothing more.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._broken = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes in and yield each frame that is whole.

        Raises:
            AgentError: the bytes are not frames, or promise more than is allowed.
        """
        if self._broken:
            raise AgentError("agent: bytes after a broken frame")
        self._buffer += data
        at = 0
        try:
            while (frame := self._next(at)) is not None:
                at += HEADER.size + len(frame.payload)
                yield frame
        finally:
            del self._buffer[:at]

    def _next(self, at: int) -> Frame | None:
        if len(self._buffer) - at < HEADER.size:
            return None
        magic, kind, flags, stream, length = HEADER.unpack_from(self._buffer, at)
        if magic != MAGIC or length > MAX_PAYLOAD or not Kind.HELLO <= kind <= Kind.IDENTITY:
            self._broken = True
            raise AgentError(
                f"agent: not a frame: {bytes(self._buffer[at : at + HEADER.size]).hex()}",
                hint="does another program listen on this port of the guest?",
            )
        start = at + HEADER.size
        if len(self._buffer) - start < length:
            return None
        with memoryview(self._buffer) as view:
            payload = bytes(view[start : start + length])  # one copy, not two
        return Frame(Kind(kind), payload, stream, flags)
