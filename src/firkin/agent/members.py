"""What a tar archive from the guest holds, member by member. Every byte is hostile, so all is bounded and checked.

tarfile reads the headers themselves. Its own streams are not used: they believe any length that is promised.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from firkin.agent.sparse import BLOCK, Extent, decode_map
from firkin.errors import BadArchive

ZEROS = bytes(BLOCK)
MAX_RECORDS = 1 << 16  # bytes of pax records before one header: names have 4,096 at most
MAX_TRAILER = 1 << 16  # bytes after the end; tar fills its last record up with zeros
MAX_DEPTH = 256
MAX_SIZE = (1 << 63) - 1
MAX_SECONDS = 1 << 40
MAX_ID = (1 << 32) - 2
MAX_NAME, MAX_TARGET = 255, 4095
MAX_MAJOR, MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1


class MemberKind(StrEnum):
    """What a member is."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    FIFO = "fifo"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"


KINDS = {
    tarfile.REGTYPE: MemberKind.FILE,
    tarfile.AREGTYPE: MemberKind.FILE,
    tarfile.DIRTYPE: MemberKind.FOLDER,
    tarfile.SYMTYPE: MemberKind.SYMLINK,
    tarfile.LNKTYPE: MemberKind.HARD_LINK,
    tarfile.FIFOTYPE: MemberKind.FIFO,
    tarfile.CHRTYPE: MemberKind.CHARACTER_DEVICE,
    tarfile.BLKTYPE: MemberKind.BLOCK_DEVICE,
}

DEVICES = (MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE)

Parts = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One thing of an archive. `parts` are the folders on the way and its own name; none for the archive's root."""

    kind: MemberKind
    parts: Parts
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    extents: tuple[Extent, ...] = ()
    target: bytes = b""  # of a symbolic link, as it is
    source: Parts = ()  # of a hard link: the member that it is another name of
    device: tuple[int, int] = (0, 0)


class ArchiveReader:
    """Reads an archive from pieces of bytes. A member's data must be read in order; what is left is passed over."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._left = 0  # bytes of the member that were not read
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """Each member in turn.

        Raises:
            BadArchive: this is no archive, it ends too early, or holds what no archive of ours does.
        """
        records: dict[bytes, bytes] = {}
        while (info := self._header()) is not None:
            if info.type == tarfile.XHDTYPE and not records:
                records = _records(self._exactly(_bounded(info.size, MAX_RECORDS, "pax records")))
                self._exactly(-info.size % BLOCK)
                continue
            yield self._member(info, records)
            self._finish()
            records = {}
        if records:
            raise BadArchive("it ends after pax records")
        self._trailer()

    def data(self, extent: Extent) -> Iterator[memoryview]:
        """The bytes of one extent of the current member, in order. A view is good until the next one."""
        left = extent.length
        while left:
            piece = self._next(left)
            left -= len(piece)
            self._left -= len(piece)
            yield piece

    def _header(self) -> tarfile.TarInfo | None:
        block = self._exactly(BLOCK)
        if block == ZEROS:
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise BadArchive(f"a header that is none ({error})") from error
        if info.size < 0:
            raise BadArchive(f"a member of {info.size} bytes")
        return info

    def _member(self, info: tarfile.TarInfo, records: dict[bytes, bytes]) -> Member:
        kind = KINDS.get(info.type)
        if kind is None:
            raise BadArchive(f"a member of type {info.type!r}")
        size = _number(records, b"size", info.size, MAX_SIZE) if kind is MemberKind.FILE else 0
        self._left, self._padding = size, -size % BLOCK
        real_size, extents = self._extents(records, size)
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or _bytes(info.name)
        target = records.get(b"linkpath") or _bytes(info.linkname)
        return Member(
            kind,
            split(name),
            info.mode & 0o7777,
            _number(records, b"uid", info.uid, MAX_ID),
            _number(records, b"gid", info.gid, MAX_ID),
            _time(records, info.mtime),
            real_size,
            extents,
            target=_target(target) if kind is MemberKind.SYMLINK else b"",
            source=split(target) if kind is MemberKind.HARD_LINK else (),
            device=_device(info) if kind in DEVICES else (0, 0),
        )

    def _extents(self, records: dict[bytes, bytes], size: int) -> tuple[int, tuple[Extent, ...]]:
        if not any(key.startswith(b"GNU.sparse.") for key in records):
            return size, (Extent(0, size),) if size else ()
        if (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")) != (b"1", b"0"):
            raise BadArchive("a sparse file in another format than 1.0")
        real_size = _number(records, b"GNU.sparse.realsize", 0, MAX_SIZE)
        extents, taken = decode_map(self._block_of_member, real_size)
        if sum(extent.length for extent in extents) != size - taken:
            raise BadArchive("a sparse file whose map does not fit its data")
        return real_size, tuple(extents)

    def _block_of_member(self, size: int) -> bytes:
        if self._left < size:
            raise BadArchive("a sparse file without a map")
        self._left -= size
        return self._exactly(size)

    def _finish(self) -> None:
        """Pass over what nobody read of the member."""
        for _ in self.data(Extent(0, self._left)):
            pass
        self._exactly(self._padding)

    def _trailer(self) -> None:
        extra = len(self._piece)
        for piece in self._pieces:
            extra += len(piece)
            if extra > MAX_TRAILER:
                raise BadArchive("it goes on after its end")

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            parts.append(bytes(self._next(size)))
            size -= len(parts[-1])
        return b"".join(parts)

    def _next(self, limit: int) -> memoryview:
        """What is at hand, at most `limit` bytes."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                raise BadArchive("it ends too early")
            self._piece = memoryview(piece)
        taken, self._piece = self._piece[:limit], self._piece[limit:]
        return taken


def split(name: bytes) -> Parts:
    """A name's parts, without those that mean nothing.

    Raises:
        BadArchive: it is absolute, leads upwards, holds a NUL, or is longer or deeper than any name of a file.
    """
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if not name or name.startswith(b"/") or b".." in parts or b"\0" in name:
        raise BadArchive(f"the name {name[:200]!r}")
    if len(parts) > MAX_DEPTH or any(len(part) > MAX_NAME for part in parts):
        raise BadArchive(f"a name too long or too deep, {name[:80]!r}...")
    return parts


def _records(data: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise BadArchive("pax records that make no sense")
        found[key] = value
        at = end
    return found


def _number(records: dict[bytes, bytes], key: bytes, otherwise: int, most: int) -> int:
    text = records.get(key)
    if text is None:
        return _bounded(otherwise, most, key.decode())
    if not text.isdigit() or len(text) > len(str(most)):
        raise BadArchive(f"{key.decode()} of {text[:40]!r}")
    return _bounded(int(text), most, key.decode())


def _time(records: dict[bytes, bytes], otherwise: float) -> int:
    text = records.get(b"mtime", str(int(otherwise)).encode())
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > len(str(MAX_SECONDS)) or not (fraction + b"0").isdigit():
        raise BadArchive(f"a time of {text[:40]!r}")
    nanoseconds = _bounded(int(whole), MAX_SECONDS, "time") * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if text.startswith(b"-") else nanoseconds


def _target(target: bytes) -> bytes:
    if not target or b"\0" in target or len(target) > MAX_TARGET:
        raise BadArchive(f"a symbolic link to {target[:80]!r}")
    return target


def _device(info: tarfile.TarInfo) -> tuple[int, int]:
    return _bounded(info.devmajor, MAX_MAJOR, "device number"), _bounded(info.devminor, MAX_MINOR, "device number")


def _bounded(value: int, most: int, what: str) -> int:
    if not 0 <= value <= most:
        raise BadArchive(f"{what} of {value}")
    return value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
