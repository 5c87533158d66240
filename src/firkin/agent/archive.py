"""A file or folder of the host as a tar archive (pax), piece by piece: constant memory, whatever the size.

Python's tarfile builds the headers. It writes no sparse files, and reads a file through two copies.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress

from firkin.agent.sparse import BLOCK, Extent, encode_map, extents
from firkin.errors import HostError, KernelRefused

READ_BYTES = 1 << 16  # what a frame holds
END = bytes(2 * BLOCK)
TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}  # a socket is nothing that could be copied
DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)


def pack(source: str, name: str, *, owners: bool = False) -> Iterator[bytes]:
    """The archive of what is at `source`, called `name`; where that is empty, of what is in the folder `source`.

    Sockets, and what goes away in the meantime, are left out. A file that grows is taken as it was when it was opened.
    With `owners` their numbers are kept; else all belongs to root.

    Raises:
        KernelRefused: something cannot be read.
        HostError: a file shrank while it was read.
    """
    return in_large_pieces(_Packer(owners).archive(os.fsdecode(source), name))


class _Packer:
    """Turns what a walk meets into members, and remembers which files have more than one name."""

    def __init__(self, owners: bool) -> None:
        self._owners = owners
        self._names: dict[tuple[int, int], str] = {}

    def archive(self, source: str, name: str) -> Iterator[bytes]:
        try:
            for path, entry, status in _walk(source, name):
                with suppress(FileNotFoundError):  # it went away since the folder was read
                    yield from self._member(path, entry, status)
        except OSError as error:
            raise KernelRefused(f"cannot read {error.filename or source}", error.errno or 0) from error
        yield END

    def _member(self, path: str, name: str, status: os.stat_result) -> Iterator[bytes]:
        kind = TYPES.get(stat.S_IFMT(status.st_mode))
        if kind == tarfile.REGTYPE:
            yield from self._file(path, name)
        elif kind is not None:
            yield _encode(self._special(path, name, kind, status))

    def _special(self, path: str, name: str, kind: bytes, status: os.stat_result) -> tarfile.TarInfo:
        info = self._info(name, kind, status)
        if kind == tarfile.SYMTYPE:
            info.linkname = os.readlink(path)  # noqa: PTH115 - Path would rewrite the target
        elif kind in DEVICES:
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        return info

    def _file(self, path: str, name: str) -> Iterator[bytes]:
        # Not blocking, and checked again: it may have become something else since it was looked at.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise HostError(f"{path}: became something else while it was read")
            info = self._info(name, tarfile.REGTYPE, status)
            if status.st_nlink > 1 and (first := self._names.setdefault((status.st_dev, status.st_ino), name)) != name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                yield _encode(info)
                return
            yield from _content_of(fd, path, info, status.st_size)
        finally:
            os.close(fd)

    def _info(self, name: str, kind: bytes, status: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode = kind, stat.S_IMODE(status.st_mode)
        info.mtime = status.st_mtime_ns // 10**9
        if status.st_mtime_ns % 10**9:
            info.pax_headers = {"mtime": _seconds(status.st_mtime_ns)}
        if self._owners:
            info.uid, info.gid = status.st_uid, status.st_gid
        return info


def _walk(source: str, name: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """(path, name in the archive, status) of all there is, a folder before what is in it."""
    waiting = [iter([(source, name)]) if name else _entries(source, "")]
    while waiting:
        path, entry = next(waiting[-1], ("", ""))
        if not path:
            waiting.pop()
            continue
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            if path == source:
                raise
            continue
        yield path, entry, status
        if stat.S_ISDIR(status.st_mode):
            waiting.append(_entries(path, entry + "/"))


def _entries(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
    """(path, name) of what is in a folder, read as it is asked for: a list of all could be large."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.path, prefix + entry.name


def _content_of(fd: int, path: str, info: tarfile.TarInfo, size: int) -> Iterator[bytes]:
    yield from member(fd, path, info, extents(fd, size), size)


def member(fd: int, path: str, info: tarfile.TarInfo, parts: list[Extent] | None, size: int) -> Iterator[bytes]:
    """A file of `size` bytes with its header, of which only `parts` are stored; None for all of it."""
    if parts is None:
        info.size = size
        yield _encode(info)
        parts = [Extent(0, size)]
    else:
        yield from _sparse_header(info, parts, size)
    for extent in parts:
        yield from _read(fd, path, extent)
    yield bytes(-info.size % BLOCK)


def _sparse_header(info: tarfile.TarInfo, parts: list[Extent], size: int) -> Iterator[bytes]:
    chart = encode_map(parts, size)
    info.size = len(chart) + sum(extent.length for extent in parts)
    info.pax_headers = {
        **info.pax_headers,
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(size),
    }
    yield _encode(info)
    yield chart


def _read(fd: int, path: str, extent: Extent) -> Iterator[bytes]:
    at, end = extent.offset, sum(extent)
    while at < end:
        piece = os.pread(fd, min(READ_BYTES, end - at), at)
        if not piece:
            raise HostError(f"{path}: shrank while it was read", hint="copy it when nobody writes to it")
        yield piece
        at += len(piece)


def _seconds(nanoseconds: int) -> str:
    whole, fraction = divmod(abs(nanoseconds), 10**9)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{fraction:09d}"


def _encode(info: tarfile.TarInfo) -> bytes:
    try:
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    except ValueError as error:
        raise KernelRefused(f"cannot pack {info.name}: {error}", errno.EINVAL) from error


def in_large_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, small pieces joined: each that is sent costs a call, here and in the guest."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        if size and size + len(piece) > READ_BYTES:
            yield b"".join(held)
            held, size = [], 0
        if piece:
            held.append(piece)
            size += len(piece)
    if held:
        yield b"".join(held)
