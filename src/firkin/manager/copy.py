"""Copies between host and guest, and from guest to guest, as archives that stream through."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from firkin import progress
from firkin.agent.archive import pack
from firkin.agent.extract import Unpacking, unpack
from firkin.agent.fs import GuestFs, absolute
from firkin.agent.transfer import OnBytes, StartTask, Transfer
from firkin.errors import FirkinError, GuestFileError, KernelRefused, UsageError
from firkin.manager.copying import CopyPlan, Look, Source, find_source, find_target, plan_copy

GONE = (errno.ENOENT, errno.ENOTDIR)

HostPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Copied:
    """What was done: bytes of the archive that went over, and what was left out, a line each."""

    size: int
    notes: tuple[str, ...] = ()


class HostSide:
    """Files of this host."""

    def look(self, path: str) -> Look | None:
        try:
            status = os.lstat(path)
            link = stat.S_ISLNK(status.st_mode)
            target = os.readlink(path) if link else None  # noqa: PTH115 - Path would rewrite the target
        except OSError as error:
            if error.errno in GONE:
                return None
            raise KernelRefused(f"cannot read {path}", error.errno or 0) from error
        return Look(stat.S_ISDIR(status.st_mode), target, status.st_size)

    def error(self, path: str, code: int) -> FirkinError:
        return UsageError(f"{path}: {os.strerror(code)}")


class GuestSide:
    """Files of a guest."""

    def __init__(self, fs: GuestFs, name: str) -> None:
        self._fs = fs
        self._name = name

    def look(self, path: str) -> Look | None:
        try:
            found = self._fs.stat(path, follow=False)
        except GuestFileError as error:
            if error.errno in GONE:
                return None
            raise
        return Look(found.is_dir, found.target if found.is_symlink else None, found.size)

    def error(self, path: str, code: int) -> FirkinError:
        return GuestFileError(f"{self._name}:{path}", code)


class Guest:
    """One end of a copy in a machine: how its tasks are started, and its files."""

    def __init__(self, start: StartTask, name: str) -> None:
        self.name = name
        self.side = GuestSide(GuestFs(start), name)
        self._start = start

    def get(self, source: Source, name: str | None, on_bytes: OnBytes | None = None) -> tuple[Transfer, str]:
        """Have the guest archive `source`, called `name` (its content alone: None); answers what the first parts of the
        members must be, too. What is no folder has its own name."""
        called = (name or ".") if source.is_dir else posixpath.basename(source.path)
        words = ["get", source.path, *([called] if source.is_dir else [])]
        return Transfer(self._start(*words), f"{self.name}:{source.path}", on_bytes=on_bytes), called

    def put(self, plan: CopyPlan, *, rename: bool = False, on_bytes: OnBytes | None = None) -> Transfer:
        """Have the guest unpack an archive."""
        words = ["put", plan.folder, *([plan.name] if rename and plan.name is not None else [])]
        label = f"{self.name}:{posixpath.join(plan.folder, plan.name or '')}"
        return Transfer(self._start(*words, stdin=True), label, on_bytes=on_bytes)


def copy_in(source: HostPath, guest: Guest, target: str, *, archive: bool, follow: bool) -> Copied:
    """From this host into a guest."""
    found = find_source(HostSide(), os.fspath(source), follow=follow)
    plan = plan_copy(found, find_target(guest.side, absolute(target)))
    pieces = pack(found.path, plan.name or "", owners=archive)
    with _counted(f"Copying to {guest.name}", found.size) as count, guest.put(plan, on_bytes=count.add) as transfer:
        transfer.send(pieces)
    return Copied(count.done, tuple(transfer.notes))


def copy_out(
    guest: Guest, source: str, target: HostPath, *, archive: bool, follow: bool, max_bytes: int | None = None
) -> Copied:
    """From a guest to this host."""
    found = find_source(guest.side, absolute(source), follow=follow)
    plan = plan_copy(found, find_target(HostSide(), os.fspath(target)))
    with _counted(f"Copying from {guest.name}", found.size) as count:
        transfer, called = guest.get(found, plan.name, count.add)
        with transfer:
            unpacking = Unpacking(
                None if plan.name is None else os.fsencode(called), os.fsencode(plan.name or ""), archive
            )
            left_out = unpack(_limited(transfer.receive(), source, max_bytes), plan.folder, unpacking)
    notes = [f"{left_out} device files were left out; with -a root keeps them"] if left_out else []
    return Copied(count.done, (*transfer.notes, *notes))


def copy_across(guest: Guest, source: str, other: Guest, target: str, *, follow: bool) -> Copied:
    """From a guest to another; owners are kept. Nothing is written on this host."""
    found = find_source(guest.side, absolute(source), follow=follow)
    plan = plan_copy(found, find_target(other.side, absolute(target)))
    with _counted(f"Copying from {guest.name} to {other.name}", found.size) as count:
        out, _ = guest.get(found, plan.name, count.add)
        with out, other.put(plan, rename=True) as into:
            into.send(out.receive())
    return Copied(count.done, (*out.notes, *into.notes))


def archive_in(pieces: Iterator[bytes], guest: Guest, target: str) -> Copied:
    """An archive from somewhere else into a folder of a guest; owners are those of the archive."""
    found = find_target(guest.side, absolute(target))
    if not found.is_dir:
        raise guest.side.error(target, errno.ENOTDIR if found.exists else errno.ENOENT)
    plan = CopyPlan(found.path, None)
    with _counted(f"Copying to {guest.name}", None) as count, guest.put(plan, on_bytes=count.add) as transfer:
        transfer.send(pieces)
    return Copied(count.done, tuple(transfer.notes))


def archive_out(guest: Guest, source: str, *, follow: bool) -> Iterator[bytes]:
    """What is in a guest as an archive, piece by piece."""
    found = find_source(guest.side, absolute(source), follow=follow)
    with _counted(f"Copying from {guest.name}", found.size) as count:
        transfer, _ = guest.get(found, None if found.content else found.name, count.add)
        with transfer:
            yield from transfer.receive()


class _Count:
    def __init__(self, step: progress.Step, total: int | None) -> None:
        self.done = 0
        self._step = step
        self._total = total

    def add(self, size: int) -> None:
        self.done += size
        self._step.advance(self.done, self._total)


@contextmanager
def _counted(title: str, total: int | None) -> Iterator[_Count]:
    with progress.step(title) as step:
        yield _Count(step, total)


def _limited(pieces: Iterator[bytes], path: str, limit: int | None) -> Iterator[bytes]:
    taken = 0
    for piece in pieces:
        taken += len(piece)
        if limit is not None and taken > limit:
            raise GuestFileError(path, errno.EFBIG, f"more than {limit} bytes came", hint="raise the limit")
        yield piece
