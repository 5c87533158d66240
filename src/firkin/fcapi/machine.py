"""/machine-config: processors and memory."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from firkin.fcapi.wire import Wire

MAX_VCPUS = 32


class CpuTemplate(StrEnum):
    """Deprecated by Firecracker; accepted, and without effect on an emulated processor."""

    NONE = "None"
    C3 = "C3"
    T2 = "T2"
    T2S = "T2S"
    T2CL = "T2CL"
    T2A = "T2A"
    V1N1 = "V1N1"


class HugePages(StrEnum):
    """Backing of guest memory."""

    NONE = "None"
    HUGETLBFS_2M = "2M"


U8 = Annotated[int, Meta(ge=0, le=255)]
USize = Annotated[int, Meta(ge=0)]  # msgspec cannot state a bound of 2**64 - 1


class MachineConfiguration(Wire, frozen=True, kw_only=True):
    """PUT and GET /machine-config. A machine that was never configured is `DEFAULT_MACHINE`."""

    vcpu_count: U8
    mem_size_mib: USize
    smt: bool = False
    cpu_template: CpuTemplate | UnsetType = UNSET
    track_dirty_pages: bool = False
    huge_pages: HugePages = HugePages.NONE


DEFAULT_MACHINE = MachineConfiguration(vcpu_count=1, mem_size_mib=128)


class MachineConfigurationPatch(Wire, frozen=True, kw_only=True):
    """PATCH /machine-config: any subset."""

    vcpu_count: U8 | UnsetType = UNSET
    mem_size_mib: USize | UnsetType = UNSET
    smt: bool | UnsetType = UNSET
    cpu_template: CpuTemplate | UnsetType = UNSET
    track_dirty_pages: bool | UnsetType = UNSET
    huge_pages: HugePages | UnsetType = UNSET
