"""Machines that end with this process: those still there at an orderly end are removed then.

After any other end the next firkin does it: it finds their session locks free.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from typing import Protocol

from firkin.errors import FirkinError


class Removable(Protocol):
    """A machine's handle."""

    def remove(self, *, force: bool = False) -> None: ...


_living: dict[Removable, int] = {}  # and the process that made it: a fork's end is not ours


def add(machine: Removable) -> None:
    """It ends with us."""
    _living[machine] = os.getpid()


def discard(machine: Removable) -> None:
    """It ended before us."""
    _living.pop(machine, None)


@atexit.register
def end_all() -> None:
    """Remove what is left."""
    for machine, maker in list(_living.items()):
        if maker == os.getpid():
            with contextlib.suppress(FirkinError, OSError):  # nobody is left to tell, and the next firkin tries again
                machine.remove(force=True)
