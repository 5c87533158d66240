"""What a program needs of the host to run in a jail: nothing if it is a static executable, an interpreter and its
libraries if it is a script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from typing import NamedTuple

from firkin.errors import FirkinError
from firkin.jailer.faults import JailerError, with_path

# Programs and libraries; QEMU with its firmware lives there too. /lib and /lib64 are where every program looks for its
# loader, and links into /usr where the two are merged.
SYSTEM = ("/usr", "/lib", "/lib64")
LOADER_CACHE = "/etc/ld.so.cache"

_HEAD_SIZE = 4096
_MAX_LINKS = 40
_ASK = "import os, sys, firkin; print(sys.prefix, sys.base_prefix, os.path.dirname(firkin.__file__), sep='\\n')"


class Runtime(NamedTuple):
    """Folders and files of the host that the jail shows, read-only, under the same paths. Empty for an executable."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def find(exec_file: str) -> Runtime:
    """Look at the program, and ask its interpreter where it keeps things.

    Raises:
        JailerError: it cannot be read, or its interpreter does not answer.
    """
    try:
        with open(exec_file, "rb") as stream:  # noqa: PTH123 - pathlib costs start-up time
            programs = interpreters(stream.read(_HEAD_SIZE))
    except OSError as error:
        raise with_path("Open", "Failed to open", exec_file, error) from error
    if not programs:
        return Runtime()
    wanted = set(SYSTEM)
    for program in map(_on_path, programs):
        wanted.update(link.rpartition("/")[0] for link in links(program))
        if program.rpartition("/")[2].startswith("python"):
            wanted.update(_python_folders(program))
    wanted |= {os.path.realpath(path) for path in wanted - {*SYSTEM}}
    folders = outermost([path for path in wanted if os.path.isdir(path)], _device)  # noqa: PTH112 - as above
    return Runtime(folders, (LOADER_CACHE,) if os.path.isfile(LOADER_CACHE) else ())  # noqa: PTH113 - as above


def interpreters(head: bytes) -> tuple[str, ...]:
    """The programs that run a script, by its first bytes; none for anything that is no script. Pure.

    There may be two: `env` and what it finds, or the shell that installers put before a path too long or with a space.
    """
    if not head.startswith(b"#!"):
        return ()
    first, _, rest = os.fsdecode(head[2:].partition(b"\0")[0]).partition("\n")
    program, _, argument = first.strip().partition(" ")
    if program.endswith("/env"):
        return program, argument.split(" ")[-1]
    if program == "/bin/sh" and rest.startswith("'''exec' "):
        command = rest.removeprefix("'''exec' ")
        return program, command[1:].partition('"')[0] if command.startswith('"') else command.partition(" ")[0]
    return (program,)


def links(path: str) -> list[str]:
    """A path and every path that it leads to by being a link."""
    found = [path]
    for _ in range(_MAX_LINKS):
        try:
            target = os.readlink(path)  # noqa: PTH115 - pathlib costs start-up time
        except OSError:
            break
        path = os.path.normpath(f"{path.rpartition('/')[0]}/{target}" if target[:1] != "/" else target)
        found.append(path)
    return found


def outermost(paths: Collection[str], device: Callable[[str], int]) -> tuple[str, ...]:
    """Paths without those that are within another one and on the same filesystem: a bind mount shows them already."""
    kept: list[str] = []
    for path in sorted(paths):
        above = [other for other in kept if path.startswith(f"{other}/")]
        if not above or device(above[-1]) != device(path):
            kept.append(path)
    return tuple(kept)


def _on_path(program: str) -> str:
    """Where a program without a folder is found by somebody whose environment is empty."""
    if program.startswith("/"):
        return program
    folders = ("/bin", "/usr/bin")
    found = (path for folder in folders if os.access(path := f"{folder}/{program}", os.X_OK))
    return next(found, f"/usr/bin/{program}")


def _python_folders(program: str) -> list[str]:
    if program == sys.executable:
        import firkin

        return [sys.prefix, sys.base_prefix, os.path.dirname(firkin.__file__ or "")]  # noqa: PTH120 - start-up time
    from firkin.host.run import run

    try:
        return run(program, "-I", "-c", _ASK, env={}, timeout_s=30).stdout.splitlines()
    except FirkinError as error:
        raise JailerError("Runtime", f"Failed to find what {program} needs: {error}", program) from error


def _device(path: str) -> int:
    return os.stat(path).st_dev  # noqa: PTH116 - pathlib costs start-up time
