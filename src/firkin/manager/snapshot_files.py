"""The files of a snapshot: where they lie, what they hold, what they take, and a chain of differences made whole."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from firkin.errors import HostError
from firkin.host import memory, sparse
from firkin.host.files import sha256_file
from firkin.paths import Paths

PAGE_SIZE = 4096
SHARED_MEMORY = Path("/dev/shm")  # a tmpfs that programs share memory by


@dataclass(frozen=True, slots=True)
class Files:
    """What a machine is loaded from."""

    state: Path
    memory: Path

    @classmethod
    def of(cls, paths: Paths, snapshot_id: str) -> Self:
        """Where a snapshot's own files lie; of a difference, `memory` is not the whole."""
        return cls.within(paths.snapshot_home(snapshot_id))

    @classmethod
    def within(cls, folder: Path) -> Self:
        return cls(folder / "state", folder / "memory")

    @property
    def folder(self) -> Path:
        return self.state.parent

    @property
    def whole(self) -> Path:
        """A difference with all that it differs from: made when it is first needed."""
        return self.folder / "whole"


@dataclass(frozen=True, slots=True)
class Sizes:
    """In bytes."""

    apparent: int  # as `ls -l` has it: state and all of the guest's memory
    disk: int  # what the snapshot's files take, a merged memory included


def passing_folder(paths: Paths, snapshot_id: str, memory_mib: int) -> Path:
    """Where a snapshot lies that is only made to be loaded: in memory where that is plenty."""
    with suppress(OSError):
        found = os.statvfs(SHARED_MEMORY)
        if min(found.f_bavail * found.f_frsize // 2**20, memory.available_mib()) > 2 * memory_mib:
            return SHARED_MEMORY / f"firkin-{snapshot_id}"
    return paths.snapshot_home(snapshot_id)


def sizes(files: Files) -> Sizes:
    """What a snapshot takes."""
    found = {path: path.stat() for path in (files.state, files.memory, files.whole) if path.exists()}
    apparent = sum(found[path].st_size for path in found if path != files.whole)
    return Sizes(apparent, sum(entry.st_blocks for entry in found.values()) * 512)


def digests(files: Files) -> dict[str, str]:
    """File name → sha256 of its content, as `sha256sum` prints it."""
    return {path.name: sha256_file(path) for path in (files.state, files.memory)}


def check_pages(folder: Path, *, page_size: int = PAGE_SIZE) -> None:
    """A difference says by its holes which pages it has, so none may be hidden in a larger block.

    Raises:
        HostError: this file system keeps track of larger blocks only.
    """
    if (size := folder.stat().st_blksize) > page_size:
        raise HostError(
            f"{folder}: a file system with blocks of {size} bytes cannot hold differences of memory",
            hint="without --diff, or set FIRKIN_HOME to an ext4, xfs, btrfs or tmpfs",
        )


def merge(base: Path, differences: list[Path], target: Path) -> None:
    """Make `target`, a new file, of a memory and what changed since, oldest first; clones where the disk can.

    Raises:
        OSError: the disk is full, or fails.
    """
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, base.stat().st_size)
        for source in (base, *differences):
            _lay_over(source, fd)
        os.fsync(fd)
    finally:
        os.close(fd)


def _lay_over(source: Path, target: int) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sparse.copy(fd, target, sparse.data_extents(fd, os.fstat(fd).st_size))
    finally:
        os.close(fd)
