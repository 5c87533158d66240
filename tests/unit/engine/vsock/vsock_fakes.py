"""A stand-in for the host's end of a connection."""

from __future__ import annotations


class FakeStream:
    """A host program. `inbox` is what it wrote; `outbox` what it got."""

    def __init__(self, inbox: bytes = b"", *, room: int = 1 << 30) -> None:
        self.inbox = bytearray(inbox)
        self.outbox = bytearray()
        self.room = room
        self.stopped_writing = False
        self.left = False
        self.deaf = False
        self.wants_writable = False
        self.finished = False
        self.reading_stopped = False
        self.closed = False

    def receive(self, size: int) -> bytes:
        data = bytes(self.inbox[:size])
        del self.inbox[:size]
        if not data and not self.stopped_writing and not self.left:
            raise BlockingIOError
        return data

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.deaf or self.left:
            raise BrokenPipeError
        taken = bytes(data[: self.room])
        if not taken:
            raise BlockingIOError
        self.room -= len(taken)
        self.outbox += taken
        return len(taken)

    def want_writable(self, wanted: bool) -> None:
        self.wants_writable = wanted

    def finish_writing(self) -> None:
        self.finished = True

    def stop_reading(self) -> None:
        self.reading_stopped = True

    def gone(self) -> bool:
        return self.left

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
