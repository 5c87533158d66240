"""Which executable serves Firecracker's API here, and how it is started."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from firkin.errors import HostError
from firkin.settings import EngineChoice
from firkin.vmm.boot import API_SOCKET


def choose(wanted: EngineChoice, verdict: Callable[[], str]) -> str:
    """Name of the engine. `verdict` is the host check's choice, asked only where the user left it open.

    Raises:
        HostError: Firecracker was asked for and is not installed.
    """
    name = verdict() if wanted is EngineChoice.AUTO else str(wanted)
    if name == EngineChoice.FIRECRACKER and shutil.which("firecracker") is None:
        raise HostError("firecracker: program not found", hint="install it on the PATH, or --engine firkin-vmm")
    return name


# Isolated from the user's environment, so that it works from any kind of installation.
FIRKIN_VMM = [sys.executable, "-I", "-m", "firkin.engine"]
# Of the user's environment: where programs, their libraries and our marks are, and the log's local time.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "XDG_RUNTIME_DIR", "TZ")


def programs(engine: str) -> list[str]:
    """The executables that decide what this engine's machines are: with another one they are other machines."""
    name = "firecracker" if engine == EngineChoice.FIRECRACKER else "qemu-system-x86_64"
    found = shutil.which(name)
    return [found] if found else []


def argv(engine: str, machine_id: str, log: Path) -> list[str]:
    """Command line of one engine. Both take the same flags.

    firkin-vmm is started as a module of the running interpreter. Without a log file the log would mix into the console
    on stdout.
    """
    program = ["firecracker"] if engine == EngineChoice.FIRECRACKER else FIRKIN_VMM
    return [*program, "--id", machine_id, "--api-sock", API_SOCKET, "--log-path", str(log)]


def has_zygote(argv: Sequence[str]) -> bool:
    """Whether this engine can be forked from a warm process."""
    return argv[: len(FIRKIN_VMM)] == FIRKIN_VMM


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine gets to know of the user's environment."""
    return {name: environ[name] for name in _KEPT if name in environ}
