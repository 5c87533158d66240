"""/machine-config: processors and memory."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import UNSET, UnsetType

from firkin.fcapi.wire import U8, USize, Wire

MAX_VCPUS = 32


class CpuTemplate(StrEnum):
    """Those of x86-64. Deprecated by Firecracker; accepted, and without effect on an emulated processor."""

    C3 = "C3"
    T2 = "T2"
    T2S = "T2S"
    NONE = "None"
    T2CL = "T2CL"
    T2A = "T2A"


class HugePages(StrEnum):
    """Backing of guest memory."""

    NONE = "None"
    HUGETLBFS_2M = "2M"


class MachineConfiguration(Wire, frozen=True, kw_only=True):
    """PUT and GET /machine-config. A machine that was never configured is `DEFAULT_MACHINE`."""

    rust: ClassVar[str] = "MachineConfig"

    vcpu_count: U8
    mem_size_mib: USize
    smt: bool = False
    cpu_template: CpuTemplate | UnsetType = UNSET
    track_dirty_pages: bool = False
    huge_pages: HugePages = HugePages.NONE


DEFAULT_MACHINE = MachineConfiguration(vcpu_count=1, mem_size_mib=128)


class MachineConfigurationPatch(Wire, frozen=True, kw_only=True):
    """PATCH /machine-config: any subset."""

    rust: ClassVar[str] = "MachineConfigUpdate"

    vcpu_count: U8 | UnsetType = UNSET
    mem_size_mib: USize | UnsetType = UNSET
    smt: bool | UnsetType = UNSET
    cpu_template: CpuTemplate | UnsetType = UNSET
    track_dirty_pages: bool | UnsetType = UNSET
    huge_pages: HugePages | UnsetType = UNSET
