"""Which cgroup files get which text, for both versions of the kernel's interface: planned as values, then written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

from firkin.jailer.faults import JailerError, os_text, with_path
from firkin.jailer.request import Request

MOUNTS = "/proc/mounts"


class MakeGroup(NamedTuple):
    """Make the folder, and those above it; having it already is fine."""

    path: str


class Inherit(NamedTuple):
    """Copy the parent's value into `path`/`file`, filling empty parents on up to `depth` levels first.

    A fresh cpuset is empty, and refuses every value and process while the one above it is.
    """

    path: str
    file: str
    depth: int


class Write(NamedTuple):
    """Write one line."""

    path: str
    text: str


class Join(NamedTuple):
    """Write our own pid."""

    path: str


class Move(NamedTuple):
    """Write our own pid into the group at `path`, if there is one."""

    path: str


Step = MakeGroup | Inherit | Write | Join | Move


class Hierarchies(NamedTuple):
    """Where cgroups are mounted: by controller in version 1, once in version 2, with what the latter offers."""

    v1: dict[str, str]
    v2: str | None = None
    v2_controllers: frozenset[str] = frozenset()


def find_hierarchies(mounts: str, read: Callable[[str], str]) -> Hierarchies:
    """By the text of /proc/mounts; the first mount of a controller counts."""
    v1: dict[str, str] = {}
    v2 = None
    for line in mounts.splitlines():
        _device, folder, kind, options, *_ = [*line.split(" "), "", "", "", ""]
        if kind == "cgroup":
            for name in options.split(","):
                v1.setdefault(name, folder)
        elif kind == "cgroup2":
            v2 = v2 or folder
    offered = read(f"{v2}/cgroup.controllers").split() if v2 else []
    return Hierarchies(v1, v2, frozenset(offered))


def plan(request: Request, found: Hierarchies) -> tuple[Step, ...]:
    """Every step, in order: all values are written before the process joins any group. Pure.

    Raises:
        JailerError: a malformed cgroup, or a controller that is not there.
    """
    if not request.cgroups and request.cgroup_version != 2:
        return ()
    _check_version(request.cgroup_version, found)
    if not request.cgroups:
        # Without values of its own the machine goes into the parent itself.
        return (Move(f"{found.v2}/{request.parent_cgroup}"),)
    values: list[Step] = []
    joins: dict[str, Step] = {}
    for given in request.cgroups:
        file, value = _split(given)
        steps, join = (_v1 if request.cgroup_version == 1 else _v2)(request, found, file, value)
        values += [step for step in steps if step not in values]
        joins[join.path] = join
    return (*values, *joins.values())


def carry_out(steps: tuple[Step, ...]) -> None:
    """Do as planned, in the calling process.

    Raises:
        JailerError: the first step that fails.
    """
    for step in steps:
        match step:
            case MakeGroup(path):
                _make_group(path)
            case Inherit(path, file, depth):
                _inherit(path, file, depth)
            case Write(path, text):
                _write(path, text)
            case Join(path):
                _write(path, str(os.getpid()))
            case Move(path):
                _move(path)


def _check_version(version: int, found: Hierarchies) -> None:
    if version not in (1, 2):
        raise JailerError("CgroupInvalidVersion", f"{version} is an invalid cgroup version specifier", str(version))
    if not (found.v1 if version == 1 else found.v2):
        text = "No hierarchy found for this cgroup version."
        raise JailerError("CgroupHierarchyMissing", f"Hierarchy not found: {text}", text)


def _split(given: str) -> tuple[str, str]:
    file, _, value = given.partition("=")
    if given.count("=") != 1 or not value:
        raise JailerError("CgroupFormat", f"Invalid format for cgroups: {given}", given)
    parts = file.split("/")
    if file.startswith("/") or ".." in parts or parts[0] == ".":
        raise JailerError("CgroupInvalidFile", f"Cgroup invalid file: {given}", given)
    if "." not in file:
        raise JailerError("CgroupInvalidFile", f"Cgroup invalid file: {file}", file)
    return file, value


def _v1(request: Request, found: Hierarchies, file: str, value: str) -> tuple[list[Step], Join]:
    base = found.v1.get(file.partition(".")[0])
    if base is None:
        raise _unavailable(file)
    group = f"{base}/{request.parent_cgroup}/{request.id}"
    depth = len(request.parent_cgroup.split("/"))
    return [MakeGroup(group), Inherit(group, file, depth), Write(f"{group}/{file}", value)], Join(f"{group}/tasks")


def _v2(request: Request, found: Hierarchies, file: str, value: str) -> tuple[list[Step], Join]:
    controller = file.partition(".")[0]
    if controller not in found.v2_controllers:
        raise _unavailable(file)
    steps: list[Step] = [MakeGroup(f"{found.v2}/{request.parent_cgroup}/{request.id}")]
    above = found.v2 or ""
    for name in ("", *request.parent_cgroup.split("/")):
        above = f"{above}/{name}".rstrip("/")
        steps.append(Write(f"{above}/cgroup.subtree_control", f"+{controller}"))
    group = f"{above}/{request.id}"
    return [*steps, Write(f"{group}/{file}", value)], Join(f"{group}/cgroup.procs")


def _unavailable(file: str) -> JailerError:
    controller = file.partition(".")[0]
    return JailerError("CgroupControllerUnavailable", f"Controller {controller} is unavailable", controller)


def _make_group(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - pathlib costs start-up time
    except OSError as error:
        raise with_path("CreateDir", "Failed to create directory", path, error) from error


def _inherit(path: str, file: str, depth: int) -> None:
    above = path.rpartition("/")[0]
    line = _read_line(f"{above}/{file}")
    if not line and depth > 0:
        with contextlib.suppress(JailerError):  # another jailer may be first: what counts is that it is not empty
            _inherit(above, file, depth - 1)
        line = _read_line(f"{above}/{file}")
    if not line:
        text = f"Failed to inherit cgroups configurations from file {file} in path {path}"
        raise JailerError("CgroupInheritFromParent", text, path, file)
    _write(f"{path}/{file}", line)


def _read_line(path: str) -> str:
    try:
        with open(path) as stream:  # noqa: PTH123 - pathlib costs start-up time
            return stream.read().removesuffix("\n")
    except OSError as error:
        text = f"Failed to read file {path} into a string: {os_text(error)}"
        raise JailerError("ReadToString", text, path, error) from error


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as stream:  # noqa: PTH123 - pathlib costs start-up time
            stream.write(f"{text}\n")
    except OSError as error:
        raise with_path("Write", "Failed to write to", path, error) from error


def _move(path: str) -> None:
    if not os.path.exists(path):  # noqa: PTH110 - pathlib costs start-up time
        return
    try:
        with open(f"{path}/cgroup.procs", "w") as stream:  # noqa: PTH123 - as above
            stream.write(str(os.getpid()))
    except OSError as error:
        hint = f"Hint: If you intended to create a child cgroup under {path}, pass any --cgroup parameters."
        text = f"Failed to move process to cgroup ({path}): {os_text(error)}.\n{hint}"
        raise JailerError("CgroupMove", text, path, error) from error
