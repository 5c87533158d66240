"""Where a guest program's stdin comes from: bytes at hand, or a descriptor of ours."""

from __future__ import annotations

import os

READ_BYTES = 32768


class Stdin:
    """Hands out what there is within the guest's credit. `None` is a program without stdin."""

    def __init__(self, source: bytes | int | None) -> None:
        self._data = memoryview(source if isinstance(source, bytes) else b"")
        self._fd = source if isinstance(source, int) else None
        self.wanted = source is not None
        self.ended = source is None
        self.credit = 0

    @property
    def fd_to_poll(self) -> int | None:
        """The descriptor to wait for; None while there is nothing to wait for or no credit to use."""
        return self._fd if not self.ended and self.credit > 0 else None

    @property
    def at_hand(self) -> bool:
        """Whether `take` has something without waiting."""
        return self._fd is None and not self.ended and (self.credit > 0 or not self._data)

    def take(self) -> bytes:
        """The next piece, within credit; empty at the end, which also sets `ended`."""
        limit = min(self.credit, READ_BYTES)
        piece = bytes(self._data[:limit]) if self._fd is None else _read(self._fd, limit)
        self._data = self._data[len(piece) :]
        self.credit -= len(piece)
        self.ended = not piece or (self._fd is None and not self._data)
        return piece


def _read(fd: int, limit: int) -> bytes:
    try:
        return os.read(fd, limit)
    except BlockingIOError:
        raise
    except OSError:
        return b""  # a terminal that was closed: its end, as far as the guest is concerned
