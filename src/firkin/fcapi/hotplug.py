"""/hotplug/memory: memory that comes and goes while the guest runs. Sizes in MiB."""

from __future__ import annotations

from typing import ClassVar

from firkin.fcapi.wire import USize, Wire


class MemoryHotplug(Wire, frozen=True, kw_only=True):
    """PUT /hotplug/memory."""

    rust: ClassVar[str] = "MemoryHotplugConfig"

    total_size_mib: USize
    block_size_mib: USize = 2
    slot_size_mib: USize = 128


class MemoryHotplugUpdate(Wire, frozen=True, kw_only=True):
    """PATCH /hotplug/memory."""

    rust: ClassVar[str] = "MemoryHotplugSizeUpdate"

    requested_size_mib: USize


class MemoryHotplugStatus(Wire, frozen=True, kw_only=True):
    """GET /hotplug/memory."""

    total_size_mib: int
    block_size_mib: int
    slot_size_mib: int
    plugged_size_mib: int
    requested_size_mib: int
