"""What a program said and nobody has read yet."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MAX_PIECES = 1024


class Output(NamedTuple):
    """A piece of what a program said; `fd` is 1 (stdout, or its terminal) or 2 (stderr)."""

    fd: int
    data: bytes


class Outputs:
    """A queue of pieces. Many small ones are joined, since each costs far more memory than its bytes.

    Joining may move a piece of stderr before one of stdout: two pipes have no common order anyway.
    """

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, bytes | bytearray]] = deque()

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def push(self, fd: int, data: bytes) -> None:
        """Add a piece at the end."""
        if len(self._pieces) < MAX_PIECES or not self._joined(fd, data):
            self._pieces.append((fd, data))

    def pop(self) -> Output | None:
        """Take the oldest piece; None when there is none."""
        if not self._pieces:
            return None
        fd, data = self._pieces.popleft()
        return Output(fd, bytes(data))  # no copy where nothing was joined

    def _joined(self, fd: int, data: bytes) -> bool:
        for at in (-1, -2):
            former_fd, former = self._pieces[at]
            if former_fd == fd:
                if isinstance(former, bytes):
                    former = bytearray(former)
                    self._pieces[at] = (fd, former)
                former += data
                return True
        return False
