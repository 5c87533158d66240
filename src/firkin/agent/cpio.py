"""newc cpio archives, the form that the kernel unpacks as its initramfs. Pure: the same entries give the same bytes."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class CpioEntry:
    """One name in an archive. `mode` holds type and permissions; `path` has no leading slash."""

    path: str
    mode: int
    data: bytes = b""  # content; of a symbolic link its target
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)  # major, minor

    @classmethod
    def file(cls, path: str, data: bytes, mode: int = 0o644) -> CpioEntry:
        return cls(path, stat.S_IFREG | mode, data)

    @classmethod
    def folder(cls, path: str, mode: int = 0o755) -> CpioEntry:
        return cls(path, stat.S_IFDIR | mode)

    @classmethod
    def symlink(cls, path: str, target: str) -> CpioEntry:
        return cls(path, stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def char_device(cls, path: str, major: int, minor: int, mode: int = 0o600) -> CpioEntry:
        return cls(path, stat.S_IFCHR | mode, device=(major, minor))


def write_cpio(entries: Iterable[CpioEntry]) -> bytes:
    """An archive of `entries` in their order; folders that they need and do not name are put in before them.

    Archives may be concatenated: the kernel unpacks one after the other.
    """
    archive = bytearray()
    for inode, entry in enumerate(_with_parents(entries), start=1):
        archive += _record(entry, inode)
    archive += _record(CpioEntry(_TRAILER, 0), 0)
    return bytes(archive)


def _with_parents(entries: Iterable[CpioEntry]) -> Iterable[CpioEntry]:
    seen: set[str] = set()
    for entry in entries:
        parts = entry.path.split("/")
        if not all(parts) or {".", ".."} & set(parts):
            raise ValueError(f"cpio: {entry.path!r} is not a plain relative path")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in seen:
                seen.add(parent)
                yield CpioEntry.folder(parent)
        if not (stat.S_ISDIR(entry.mode) and entry.path in seen):
            yield entry
        seen.add(entry.path)


def _record(entry: CpioEntry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device of the file system (2), device of the node (2), name, checksum
    fields = (inode, entry.mode, entry.uid, entry.gid, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
