"""Reads a log that a keeper writes and rotates: its bytes in order, with the times at which they came."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import BinaryIO, NamedTuple

CHUNK = 65536
ALL_BYTES = 8 * 2**20
ENTRY_WORDS = 2  # keeper/src/log.h: nanoseconds since 1970, offset
WORD_BYTES = 8


class Run(NamedTuple):
    """Bytes that came at one time, to ten milliseconds, in seconds since 1970."""

    time: float
    data: bytes


class _Part:
    """One file of the log and its times. Where those are missing, the file's own time stands in."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb", buffering=0)
        try:
            self._times: BinaryIO | None = path.with_name(f"{path.name}.times").open("rb", buffering=0)
        except FileNotFoundError:
            self._times = None
        status = os.fstat(self._file.fileno())
        self.inode, self.size = status.st_ino, status.st_size
        self._now = status.st_mtime
        self._entries = array("Q")
        self._next = 0
        self._at = 0

    def close(self) -> None:
        self._file.close()
        if self._times is not None:
            self._times.close()

    def seek(self, offset: int) -> None:
        self._at = self._file.seek(max(0, offset))

    def read(self) -> list[Run]:
        data = self._file.read(CHUNK)
        if not data:
            return []
        self._fetch_entries()  # after the bytes: the keeper writes theirs first
        start, end, runs = self._at, self._at + len(data), []
        while (entry := self._entry()) is not None and entry[1] < end:
            offset = max(entry[1], self._at)
            if offset > self._at:
                runs.append(Run(self._now, data[self._at - start : offset - start]))
                self._at = offset
            self._now = entry[0]
            self._next += ENTRY_WORDS
        runs.append(Run(self._now, data[self._at - start :]))
        self._at = end
        return runs

    def _entry(self) -> tuple[float, int] | None:
        if self._next >= len(self._entries):
            return None
        return self._entries[self._next] / 1e9, self._entries[self._next + 1]

    def _fetch_entries(self) -> None:
        if self._times is None:
            return
        data = self._times.read()
        whole = len(data) - len(data) % (ENTRY_WORDS * WORD_BYTES)
        self._times.seek(whole - len(data), os.SEEK_CUR)
        del self._entries[: self._next]
        self._next = 0
        self._entries.frombytes(data[:whole])


class RotatedLog:
    """From `back` bytes before the log's end, or from its beginning, on and on while it is written.

    Use it as a context manager. A reader that falls behind by more than both files hold misses what was overwritten.
    """

    def __init__(self, path: Path, *, back: int | None = None) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._part: _Part | None = None
        self._start(back)

    def __enter__(self) -> RotatedLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part = None

    def read(self) -> list[Run]:
        """The next piece; an empty list where the log ends now."""
        while True:
            runs = self._part.read() if self._part is not None else []
            if runs or not self._moved():
                return runs
            # What came between the reading and the move is in the file that we hold.
            if self._part is not None and (runs := self._part.read()):
                return runs
            if not self._follow():
                return []

    def read_all(self) -> bytes:
        """All there is now, up to 8 MiB: a guest may write as fast as we read."""
        data = bytearray()
        while len(data) < ALL_BYTES and (runs := self.read()):
            data += b"".join(run.data for run in runs)
        return bytes(data)

    def _start(self, back: int | None) -> None:
        newer, older = _open(self._path), _open(self._older)
        # The same file twice: it was moved between the two openings.
        if newer and older and (older.inode == newer.inode or (back is not None and back <= newer.size)):
            older.close()
            older = None
        self._part = older or newer
        if self._part is not None and back is not None:
            beyond = newer.size if older and newer else 0
            self._part.seek(self._part.size + beyond - back)
        if older and newer:
            newer.close()

    def _moved(self) -> bool:
        """Whether the log goes on in a file that is not ours."""
        inode = _inode(self._path)
        return inode is not None and (self._part is None or inode != self._part.inode)

    def _follow(self) -> bool:
        """Go on with the file after ours, or with the oldest there is if that one is gone."""
        newer = _open(self._path)
        if newer is not None and self._part is not None and _inode(self._older) != self._part.inode:
            newer.close()
            newer = _open(self._older)
        if newer is None:
            return False
        self.close()
        self._part = newer
        return True


def last_bytes(path: Path, size: int) -> bytes:
    """The end of a log; nothing where there is none."""
    with RotatedLog(path, back=size) as log:
        return log.read_all()[-size:]


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _open(path: Path) -> _Part | None:
    """The file with the times that are its own: a rotation may come between the two openings."""
    while True:
        try:
            part = _Part(path)
        except FileNotFoundError:
            return None
        if part.inode == _inode(path):
            return part
        part.close()
