"""Kernel settings under /proc/sys. What is below net/ belongs to the network namespace of the thread that asks."""

from __future__ import annotations

from pathlib import Path

from firkin.errors import KernelRefused

FOLDER = Path("/proc/sys")


def known(key: str) -> bool:
    """Whether this kernel has the setting."""
    return (FOLDER / key).exists()


def read(key: str) -> str:
    """A setting by its path, as in `net/ipv4/ip_forward`; dots may be part of an interface's name.

    Raises:
        KernelRefused: there is no such setting.
    """
    try:
        return (FOLDER / key).read_text().strip()
    except OSError as error:
        raise KernelRefused(f"cannot read {FOLDER / key}", error.errno or 0) from error


def write(key: str, value: str) -> None:
    """Change a setting.

    Raises:
        KernelRefused: there is no such setting, or this user may not.
    """
    try:
        (FOLDER / key).write_text(f"{value}\n")
    except OSError as error:
        hint = f"run as root: echo {value} > {FOLDER / key}"
        raise KernelRefused(f"cannot write {value} to {FOLDER / key}", error.errno or 0, hint=hint) from error
