"""A Firecracker microVM from nothing, with or without KVM. Public names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firkin.errors import FirkinError as FirkinError
    from firkin.spec import MachineSpec as MachineSpec

# Most important first; documented in docs/python.md.
__all__ = ["MachineSpec", "FirkinError"]  # noqa: RUF022

__version__ = "0.1.0"

_HOME = {
    "MachineSpec": "firkin.spec",
    "FirkinError": "firkin.errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
