"""Kernel settings below /proc/sys; those of the network belong to the namespace of the calling thread."""

from __future__ import annotations

from pathlib import Path

from firkin.errors import KernelRefused

ROOT = Path("/proc/sys")


def read(key: str) -> str:
    """The value of `net.ipv4.ip_forward` and the like."""
    return (ROOT / key.replace(".", "/")).read_text().strip()


def write(key: str, value: str) -> None:
    """Set a value.

    Raises:
        KernelRefused: no permission, or no such key.
    """
    try:
        (ROOT / key.replace(".", "/")).write_text(value)
    except OSError as error:
        raise KernelRefused(f"set {key} to {value}", error.errno or 0, hint=f"sudo sysctl {key}={value}") from error
