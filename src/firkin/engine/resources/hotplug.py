"""Hotpluggable memory: QEMU's microvm has no room for it, so a request that Firecracker would take is refused here."""

from __future__ import annotations

from firkin.engine.faults import Area, Fault
from firkin.fcapi.hotplug import MemoryHotplug

_MIN_BLOCK_MIB = 2
_MIN_SLOT_MIB = 128


def refuse(config: MemoryHotplug) -> None:
    """Raises: Fault, in Firecracker's words where it would refuse too."""
    text = _impossible(config) or "not supported by this engine; a balloon can take memory and give it back."
    raise Fault(text, Area.MEMORY_HOTPLUG)


def _impossible(config: MemoryHotplug) -> str | None:
    total, block, slot = config.total_size_mib, config.block_size_mib, config.slot_size_mib
    if block < _MIN_BLOCK_MIB:
        return f"Block size must not be lower than {_MIN_BLOCK_MIB} MiB"
    if block & (block - 1):
        return "Block size must be a power of 2"
    if slot < _MIN_SLOT_MIB:
        return f"Slot size must not be lower than {_MIN_SLOT_MIB} MiB"
    if slot % block:
        return f"Slot size must be a multiple of block size ({block} MiB)"
    if total < slot:
        return f"Total size must not be lower than slot size ({slot} MiB)"
    if total % slot:
        return f"Total size must be a multiple of slot size ({slot} MiB)"
    return None
