"""What the agent tells of files: records and events. The guest's bytes are hostile, so every length is checked."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from firkin.errors import AgentError

MAX_BLOB = 4096
_RECORD = struct.Struct("<IIIIQQQQqq")
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class FileStat:
    """One file, folder or whatever else has a name in the guest. Sizes are bytes; `mode` is as in `os.stat`, `device` a
    device file's number, `target` what a symbolic link holds. Names that are no UTF-8 have surrogates, as `os.fsdecode`
    makes them."""

    name: str
    mode: int
    uid: int
    gid: int
    links: int
    device: int
    inode: int
    size: int
    disk_bytes: int
    mtime_ns: int
    target: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def permissions(self) -> int:
        """The mode without the kind: what `chmod` takes."""
        return stat.S_IMODE(self.mode)

    @property
    def mtime(self) -> float:
        """Seconds since 1970 of the last change of content."""
        return self.mtime_ns / 1e9


class FileChange(StrEnum):
    """What happened to a file."""

    CREATED = "created"
    DELETED = "deleted"
    MODIFIED = "modified"  # written to; more may come
    WRITTEN = "written"  # closed by one who could write
    ATTRIBUTES = "attributes"  # mode, owner, times
    MOVED_FROM = "moved-from"
    MOVED_TO = "moved-to"
    GONE = "gone"  # what is watched itself was deleted, moved or unmounted
    LOST = "lost"  # events came faster than they were read, and some are missing


_CHANGES = {
    0x100: FileChange.CREATED,
    0x200: FileChange.DELETED,
    0x2: FileChange.MODIFIED,
    0x8: FileChange.WRITTEN,
    0x4: FileChange.ATTRIBUTES,
    0x40: FileChange.MOVED_FROM,
    0x80: FileChange.MOVED_TO,
    0x400 | 0x800 | 0x2000: FileChange.GONE,
    0x4000: FileChange.LOST,
}  # inotify(7)
_IS_DIR = 0x40000000


@dataclass(frozen=True, slots=True)
class FileEvent:
    """One change; `path` is relative to what is watched, empty where it is that itself."""

    change: FileChange
    path: str
    is_dir: bool


class RecordReader:
    """Cuts the agent's bytes into records or events, however they were split on the way."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def stats(self, data: bytes) -> Iterator[FileStat]:
        """The records that are whole with `data`.

        Raises:
            AgentError: a name longer than a path can be.
        """
        self._buffer += data
        while (cut := self._cut(_RECORD, 2)) is not None:
            (mode, uid, gid, links, device, inode, size, disk, seconds, nanoseconds), (name, target) = cut
            mtime_ns = seconds * 10**9 + nanoseconds
            yield FileStat(name, mode, uid, gid, links, device, inode, size, disk, mtime_ns, target)

    def events(self, data: bytes) -> Iterator[tuple[int, str]]:
        """The events that are whole with `data`, as (inotify's mask, path).

        Raises:
            AgentError: as `stats`.
        """
        self._buffer += data
        while (cut := self._cut(_U32, 1)) is not None:
            (mask,), (path,) = cut
            yield mask, path

    def finish(self) -> None:
        """There is no more.

        Raises:
            AgentError: something was cut short.
        """
        if self._buffer:
            raise AgentError("agent: a record that is cut short")

    def _cut(self, fixed: struct.Struct, blobs: int) -> tuple[tuple[int, ...], list[str]] | None:
        at, texts = fixed.size, []
        for _ in range(blobs):
            if len(self._buffer) < at + _U32.size:
                return None
            (length,) = _U32.unpack_from(self._buffer, at)
            if length > MAX_BLOB:
                raise AgentError(f"agent: a name of {length} bytes")
            at += _U32.size
            if len(self._buffer) < at + length:
                return None
            texts.append(self._buffer[at : at + length].decode(errors="surrogateescape"))
            at += length
        numbers = fixed.unpack_from(self._buffer)
        del self._buffer[:at]
        return numbers, texts


def changes(mask: int, path: str) -> Iterator[FileEvent]:
    """inotify's mask as events: it may hold several bits."""
    for bits, change in _CHANGES.items():
        if mask & bits:
            yield FileEvent(change, path, bool(mask & _IS_DIR))
