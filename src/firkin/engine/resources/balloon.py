"""The balloon: how much of its memory the guest shall give back from the start."""

from __future__ import annotations

from firkin.engine.faults import Area, Fault
from firkin.fcapi.balloon import Balloon
from firkin.fcapi.machine import MachineConfiguration

BALLOON_TOO_LARGE = "Amount of pages requested is too large."
MEMORY_TOO_SMALL = "The memory size (MiB) is smaller than the previously set balloon device target size."


def check(config: Balloon, machine: MachineConfiguration) -> Balloon:
    """The configuration itself, if it is possible. Raises: Fault."""
    if config.amount_mib > machine.mem_size_mib:
        raise Fault(BALLOON_TOO_LARGE, Area.BALLOON)
    if config.free_page_hinting:
        text = "free page hinting is not supported by this engine; free_page_reporting gives the same pages back."
        raise Fault(text, Area.BALLOON)
    return config


def check_fits(balloon: Balloon | None, machine: MachineConfiguration) -> None:
    """Raises: Fault, when the machine would have less memory than its balloon shall take."""
    if balloon is not None and balloon.amount_mib > machine.mem_size_mib:
        raise Fault(MEMORY_TOO_SMALL, Area.MACHINE)
