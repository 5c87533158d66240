"""From arguments to what is asked for: numbers are numbers, paths are absolute and without links."""

from __future__ import annotations

import os
from typing import NamedTuple

from firkin.jailer.args import Arguments
from firkin.jailer.faults import Debug, JailerError, with_path

NO_FILE = 2048
_ID_LENGTH = range(1, 65)
_U8, _U32, _U64 = 0xFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


class Limits(NamedTuple):
    """Resource limits, soft and hard alike."""

    no_file: int = NO_FILE
    fsize: int | None = None


class Request(NamedTuple):
    """One jail and the program in it."""

    id: str
    exec_file: str
    base: str
    uid: int
    gid: int
    netns: str | None = None
    daemonize: bool = False
    new_pid_ns: bool = False
    cgroup_version: int = 1
    parent_cgroup: str = ""
    cgroups: tuple[str, ...] = ()
    limits: Limits = Limits()
    extra: tuple[str, ...] = ()

    @property
    def exec_name(self) -> str:
        return self.exec_file.rpartition("/")[2]

    @property
    def root(self) -> str:
        """The jail's root folder, as the host sees it."""
        return f"{self.base.rstrip('/')}/{self.exec_name}/{self.id}/root"


def read(arguments: Arguments) -> Request:
    """Check every value, in upstream's order. Looks at the files that are named and changes nothing.

    Raises:
        JailerError: the first value that will not do.
    """
    _check_id(arguments.value("id"))
    exec_file = _canonical(arguments.value("exec-file"))
    if not os.path.isfile(exec_file):  # noqa: PTH113 - pathlib costs start-up time
        raise JailerError("NotAFile", f"{exec_file} is not a file", exec_file)
    base = _canonical(arguments.value("chroot-base-dir"))
    if not os.path.isdir(base):  # noqa: PTH112 - as above
        raise JailerError("NotADirectory", f"{base} is not a directory", base)
    uid, gid = _user(arguments.value("uid"), "Uid"), _user(arguments.value("gid"), "Gid")
    return Request(
        id=arguments.value("id"),
        exec_file=exec_file,
        base=base,
        uid=uid,
        gid=gid,
        netns=arguments.get("netns"),
        daemonize="daemonize" in arguments.flags,
        new_pid_ns="new-pid-ns" in arguments.flags,
        parent_cgroup=_parent_cgroup(arguments.get("parent-cgroup"), exec_file.rpartition("/")[2]),
        cgroup_version=_cgroup_version(arguments.value("cgroup-version")),
        cgroups=arguments.all("cgroup"),
        limits=_limits(arguments.all("resource-limit")),
        extra=arguments.extra,
    )


def _check_id(text: str) -> None:
    size = len(text.encode())
    if size not in _ID_LENGTH:
        why, debug = f"Invalid len ({size});  the length must be between 1 and 64", f"InvalidLen({size}, 1, 64)"
        raise JailerError("InvalidInstanceId", f"Invalid instance ID: {why}", Debug(debug))
    for position, letter in enumerate(text):
        if letter != "-" and not letter.isalnum():
            why, debug = f"Invalid char ({letter}) at position {position}", f"InvalidChar('{letter}', {position})"
            raise JailerError("InvalidInstanceId", f"Invalid instance ID: {why}", Debug(debug))


def _canonical(path: str) -> str:
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise with_path("Canonicalize", "Failed to canonicalize path", path, error) from error


def _user(text: str, kind: str) -> int:
    number = _unsigned(text, _U32)
    if isinstance(number, str):
        raise JailerError(kind, f"Invalid {kind.lower()}: {text}", text)
    return number


def _parent_cgroup(given: str | None, exec_name: str) -> str:
    path = exec_name if given is None else given
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or parts[0] == ".":
        text = "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'"
        raise JailerError("CgroupInvalidParentPath", text)
    return path.rstrip("/")


def _cgroup_version(text: str) -> int:
    number = _unsigned(text, _U8)
    if isinstance(number, str):
        raise JailerError("CgroupInvalidVersion", f"{text} is an invalid cgroup version specifier", text)
    return number


def _limits(given: tuple[str, ...]) -> Limits:
    limits = Limits()
    for argument in given:
        name, equals, value = argument.partition("=")
        if not equals:
            raise JailerError("ResLimitFormat", f"Invalid format for resources limits: {argument}", argument)
        number = _unsigned(value, _U64)
        if isinstance(number, str):
            text = f"Invalid limit value for resource: {value}: {number}"
            raise JailerError("ResLimitValue", text, value, number)
        match name:
            case "fsize":
                limits = limits._replace(fsize=number)
            case "no-file":
                limits = limits._replace(no_file=number)
            case _:
                raise JailerError("ResLimitArgument", f"Invalid resource argument: {name}", name)
    return limits


def _unsigned(text: str, largest: int) -> int | str:
    """The number as Rust parses it, or Rust's reason why there is none."""
    digits = text.removeprefix("+")
    if not text:
        return "cannot parse integer from empty string"
    if not (digits.isascii() and digits.isdigit()):
        return "invalid digit found in string"
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(largest)) or int(digits) > largest:
        return "number too large to fit in target type"
    return int(digits)
