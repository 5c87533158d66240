"""What a state file holds: the machine's configuration, the facts that shape it, and the state of its devices."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from firkin.engine.accel import Accel
from firkin.fcapi.config import VmConfig

Positive = Annotated[int, msgspec.Meta(gt=0)]


class Traits(NamedTuple):
    """What a snapshot has to remember of how a machine came to be."""

    acpi: bool
    accelerator: Accel
    tsc_khz: int | None
    qemu_version: str
    random_address: int | None  # see reseed


class SavedMachine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine at one instant, but for its memory and its disks.

    `devices` is QEMU's own stream: only the QEMU that wrote it is sure to read it.
    """

    qemu_version: str
    accelerator: Accel
    acpi: bool
    saved_at_ns: Positive  # the host's wall clock
    tsc_khz: Positive | None
    random_address: Annotated[int, msgspec.Meta(ge=0)] | None
    next_host_port: int | None  # of the vsock device
    config: VmConfig
    devices: bytes

    @property
    def traits(self) -> Traits:
        return Traits(
            acpi=self.acpi,
            accelerator=self.accelerator,
            tsc_khz=self.tsc_khz,
            qemu_version=self.qemu_version,
            random_address=self.random_address,
        )

    @property
    def memory_size(self) -> int:
        return self.config.machine_config.mem_size_mib << 20
