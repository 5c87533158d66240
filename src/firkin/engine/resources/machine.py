"""Processors and memory: which numbers are possible. Pure."""

from __future__ import annotations

import msgspec

from firkin.engine.faults import BAD_MEMORY, BAD_VCPUS, EMPTY_BODY, Area, Fault
from firkin.fcapi.machine import MAX_VCPUS, HugePages, MachineConfiguration, MachineConfigurationPatch


def check(config: MachineConfiguration) -> MachineConfiguration:
    """The configuration itself, if it is possible. Raises: Fault."""
    vcpus = config.vcpu_count
    if not 1 <= vcpus <= MAX_VCPUS or (config.smt and vcpus > 1 and vcpus % 2):
        raise Fault(BAD_VCPUS, Area.MACHINE)
    unit = 2 if config.huge_pages is HugePages.HUGETLBFS_2M else 1
    if config.mem_size_mib == 0 or config.mem_size_mib % unit:
        raise Fault(BAD_MEMORY, Area.MACHINE)
    return config


def patched(config: MachineConfiguration, patch: MachineConfigurationPatch) -> MachineConfiguration:
    """Raises: Fault, for impossible numbers or a patch that says nothing."""
    given = {name: value for name in patch.__struct_fields__ if (value := getattr(patch, name)) is not msgspec.UNSET}
    if not given:
        raise Fault(EMPTY_BODY["PATCH"])
    return check(msgspec.structs.replace(config, **given))
