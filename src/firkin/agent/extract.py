"""Files of the host out of an archive that a guest sent: below one folder and nowhere else, whatever the archive holds.

Every file is written aside and renamed, so its name stands for the whole of it or for what was there before.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from firkin.agent.folders import Folders
from firkin.agent.members import DEVICES, ArchiveReader, Member, MemberKind, Parts
from firkin.errors import BadArchive, HostError, KernelRefused, NoSpace

ASIDE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NAME_KEPT = 200  # bytes of a name that its aside name repeats
FULL = (errno.ENOSPC, errno.EDQUOT)
TAKEN = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)


@dataclass(frozen=True, slots=True)
class Unpacking:
    """Where an archive goes. All its members are below `base` and go below `name` instead; where `base` is None the
    archive holds what is in a folder, and goes into the target itself. `keep` keeps owners, set-user-id bits and device
    files, which only root can."""

    base: bytes | None
    name: bytes = b""
    keep: bool = False

    def place(self, parts: Parts) -> Parts:
        """Where below the target a member goes.

        Raises:
            BadArchive: it is not below `base`: nobody asked for it.
        """
        if self.base is None:
            return parts
        if parts[:1] != (self.base,):
            raise BadArchive(f"{b'/'.join(parts)[:200]!r} is not what was asked for")
        return (self.name, *parts[1:])


def unpack(pieces: Iterator[bytes], folder: str, unpacking: Unpacking) -> int:
    """Write the archive's members below `folder`, which must exist; answers how many were left out: device files,
    unless they are kept.

    Folders that exist keep their mode; other things of the same name are replaced.

    Raises:
        BadArchive: it is broken, or leads out of the folder. What came before stays.
        NoSpace: the disk is full. Nothing that is not whole is left.
        KernelRefused: something cannot be written.
    """
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelRefused(f"cannot write into {folder}", error.errno or 0) from error
    try:
        unpacker = _Unpacker(root, folder, unpacking)
        return unpacker.unpack(ArchiveReader(pieces))
    finally:
        os.close(root)


class _Unpacker:
    def __init__(self, root: int, folder: str, unpacking: Unpacking) -> None:
        self._root = root
        self._folder = folder
        self._unpacking = unpacking
        self._folders = Folders(root)
        self._keep = unpacking.keep and os.geteuid() == 0
        self._modes = 0o7777 if self._keep else 0o1777
        self._first_ctime_ns: int | None = None

    def unpack(self, reader: ArchiveReader) -> int:
        left_out = 0
        try:
            for member in reader.members():
                parts = self._unpacking.place(member.parts)
                if member.kind in DEVICES and not self._keep:
                    left_out += 1
                    continue
                with self._blamed(parts, member.kind):
                    self._write(member, parts, reader)
            with self._blamed((), MemberKind.FOLDER):
                self._folders.close()
        finally:
            self._folders.abandon()
        return left_out

    def _write(self, member: Member, parts: Parts, reader: ArchiveReader) -> None:
        if member.kind is MemberKind.FOLDER:
            if parts:  # the target itself stays as it is
                self._folders.make(parts, partial(self._finish, member=member))
            return
        if not parts:
            raise BadArchive(f"a {member.kind} where a folder belongs")
        with self._aside(parts) as (above, aside):
            if member.kind is MemberKind.FILE:
                self._file(member, above, aside, reader)
            elif member.kind is MemberKind.HARD_LINK:
                self._link(member, above, aside)
            else:
                self._special(member, above, aside)

    @contextmanager
    def _aside(self, parts: Parts) -> Iterator[tuple[int, bytes]]:
        """(folder, a name in it) for something that gets its own name when it is whole."""
        above, name = self._folders.reach(parts[:-1]), parts[-1]
        aside = b".%s.firkin-%s" % (name[:NAME_KEPT], secrets.token_hex(4).encode())
        try:
            yield above, aside
            if self._first_ctime_ns is None:
                self._first_ctime_ns = os.lstat(aside, dir_fd=above).st_ctime_ns
            os.rename(aside, name, src_dir_fd=above, dst_dir_fd=above)
        finally:
            with suppress(FileNotFoundError):  # also after a rename: onto another name of itself it does nothing
                os.unlink(aside, dir_fd=above)

    def _file(self, member: Member, above: int, aside: bytes, reader: ArchiveReader) -> None:
        fd = os.open(aside, ASIDE, 0o600, dir_fd=above)
        try:
            _fill(fd, member, reader)
            self._finish(fd, member)
        finally:
            os.close(fd)

    def _link(self, member: Member, above: int, aside: bytes) -> None:
        parts = self._unpacking.place(member.source)
        if not parts:
            raise BadArchive("a hard link to the target itself")
        folders = Folders(self._root)
        try:
            where, name = folders.reach(parts[:-1]), parts[-1]
            self._expect_ours(os.lstat(name, dir_fd=where))
            os.link(name, aside, src_dir_fd=where, dst_dir_fd=above, follow_symlinks=False)
        finally:
            folders.abandon()

    def _expect_ours(self, status: os.stat_result) -> None:
        """A hard link to a file that was there before would put it where the guest wants it. Nobody can set a ctime,
        and the file system's own clock tells before and after."""
        if self._first_ctime_ns is None or status.st_ctime_ns < self._first_ctime_ns:
            raise BadArchive("a hard link to what it did not bring")

    def _special(self, member: Member, above: int, aside: bytes) -> None:
        if member.kind is MemberKind.SYMLINK:
            os.symlink(member.target, aside, dir_fd=above)
        elif member.kind is MemberKind.FIFO:
            os.mkfifo(aside, 0o600, dir_fd=above)
        else:
            kind = stat.S_IFBLK if member.kind is MemberKind.BLOCK_DEVICE else stat.S_IFCHR
            os.mknod(aside, kind | 0o600, os.makedev(*member.device), dir_fd=above)
        self._finish_named(member, above, aside)

    def _finish(self, fd: int, member: Member) -> None:
        if self._keep:
            os.fchown(fd, member.uid, member.gid)  # before the mode, since it takes set-user-id away
        os.fchmod(fd, member.mode & self._modes)
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))

    def _finish_named(self, member: Member, above: int, aside: bytes) -> None:
        if self._keep:
            os.chown(aside, member.uid, member.gid, dir_fd=above, follow_symlinks=False)
        if member.kind is not MemberKind.SYMLINK:
            os.chmod(aside, member.mode & self._modes, dir_fd=above)
        os.utime(aside, ns=(member.mtime_ns, member.mtime_ns), dir_fd=above, follow_symlinks=False)

    @contextmanager
    def _blamed(self, parts: Parts, kind: MemberKind) -> Iterator[None]:
        """A system call that fails is an error that names what it was for."""
        try:
            yield
        except OSError as error:
            path = os.path.join(self._folder, os.fsdecode(b"/".join(parts)))  # noqa: PTH118 - bytes that are no text
            if error.errno in FULL:
                raise NoSpace(f"{path}: no space left on the disk", hint=f"df {self._folder}") from error
            if error.errno in TAKEN:
                raise HostError(
                    f"{path}: cannot be replaced by a {kind}",
                    hint="a folder takes no file's place, nor a file a folder's",
                ) from error
            raise KernelRefused(f"cannot write {path}", error.errno or 0) from error


def _fill(fd: int, member: Member, reader: ArchiveReader) -> None:
    """Write a file's data; what is in between stays a hole."""
    end = 0
    for extent in member.extents:
        if extent.offset != end:
            os.lseek(fd, extent.offset, os.SEEK_SET)
        end = sum(extent)
        for piece in reader.data(extent):
            _write_all(fd, piece)
    if end != member.size:
        os.ftruncate(fd, member.size)


def _write_all(fd: int, piece: memoryview) -> None:
    written = os.write(fd, piece)
    while written < len(piece):
        written += os.write(fd, piece[written:])
