"""What a copy does, decided before anything is touched: docker cp's rules as functions of what is at both ends."""

from __future__ import annotations

import errno
import posixpath
from dataclasses import dataclass
from typing import Protocol

from firkin.errors import FirkinError, UsageError

MAX_LINKS = 40  # as Linux has it


@dataclass(frozen=True, slots=True)
class Spelling:
    """A path, and what its end says: `/` that it is a folder, `/.` that what is in the folder is meant."""

    path: str
    folder: bool = False
    content: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What has a name: `target` is what a symbolic link holds, `size` a file's bytes."""

    is_dir: bool = False
    target: str | None = None
    size: int = 0


class Side(Protocol):
    """The host, or a guest."""

    def look(self, path: str) -> Look | None:
        """What is there, links not followed; None for nothing."""

    def error(self, path: str, code: int) -> FirkinError:
        """The error of this side for an errno and a path."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied: `name` is what it is called where the target is a folder."""

    path: str
    name: str
    is_dir: bool
    content: bool = False
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where it goes."""

    path: str
    exists: bool
    is_dir: bool
    folder: bool = False


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """The copy is called `name` in `folder`, which exists. Without a name what is in the source goes into `folder`."""

    folder: str
    name: str | None


def spell(path: str) -> Spelling:
    """Take a path's end apart. A path that ends with a dot has no name of its own, so its content is meant."""
    stripped = path.rstrip("/")
    if not stripped:
        return Spelling("/", folder=True, content=True)
    last = posixpath.basename(stripped)
    if last == ".":
        above = stripped[:-1].rstrip("/") or ("/" if stripped.startswith("/") else ".")
        return Spelling(above, folder=True, content=True)
    return Spelling(stripped, folder=stripped != path or last == "..", content=last == "..")


def plan_copy(source: Source, target: Target) -> CopyPlan:
    """Where the copy goes and what it is called.

    Raises:
        UsageError: a folder onto a file, or a file into a folder that does not exist.
    """
    if target.is_dir:
        return CopyPlan(target.path, None if source.content else source.name)
    if target.exists and source.is_dir:
        raise UsageError(f"{target.path}: a folder cannot be copied onto a file", hint="remove it, or name a folder")
    if target.exists and target.folder:
        raise UsageError(f"{target.path}: is not a folder", hint="leave the slash at its end out")
    if target.folder and not source.is_dir:
        raise UsageError(f"{target.path}/: no such folder", hint="make it, or leave the slash at its end out")
    return CopyPlan(posixpath.dirname(target.path) or ".", posixpath.basename(target.path))


def find_source(side: Side, path: str, *, follow: bool) -> Source:
    """Look at what is to be copied. A link at its end is followed if `follow` says so, or a slash behind it.

    Raises:
        UsageError, GuestFileError: there is nothing, or no folder where the spelling says so.
    """
    spelling = spell(path)
    at, look = spelling.path, side.look(spelling.path)
    if look is not None and look.target is not None and (follow or spelling.folder):
        at, look = resolve(side, spelling.path)
    if look is None:
        raise side.error(path, errno.ENOENT)
    if spelling.folder and not look.is_dir:
        raise side.error(path, errno.ENOTDIR)
    return Source(
        at, posixpath.basename(spelling.path), look.is_dir, spelling.content, None if look.is_dir else look.size
    )


def find_target(side: Side, path: str) -> Target:
    """Look at where a copy is to go, at the end of links.

    Raises:
        UsageError, GuestFileError: the folder above does not exist.
    """
    spelling = spell(path)
    at, look = resolve(side, spelling.path)
    if look is None:
        above = posixpath.dirname(at) or "."
        _, folder = resolve(side, above)
        if folder is None or not folder.is_dir:
            raise side.error(above, errno.ENOENT if folder is None else errno.ENOTDIR)
    return Target(at, look is not None, look is not None and look.is_dir, spelling.folder)


def resolve(side: Side, path: str) -> tuple[str, Look | None]:
    """Follow links at the end of a path; those on the way to it are the kernel's business.

    Raises:
        UsageError, GuestFileError: they go round in circles.
    """
    at = path
    for _ in range(MAX_LINKS):
        look = side.look(at)
        if look is None or look.target is None:
            return at, look
        at = posixpath.join(posixpath.dirname(at), look.target.rstrip("/") or "/")
    raise side.error(path, errno.ELOOP)
