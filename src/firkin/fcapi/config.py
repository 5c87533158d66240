"""The config file: the whole machine in one JSON document, as `--config-file` takes it and GET /vm/config gives it."""

from __future__ import annotations

import msgspec

from firkin.fcapi.boot import BootSource
from firkin.fcapi.drives import Drive
from firkin.fcapi.logger import Logger
from firkin.fcapi.machine import MachineConfiguration
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.vsock import Vsock


class VmConfig(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Unknown keys at this level are ignored, as upstream; inside an object they are errors."""

    boot_source: BootSource
    drives: tuple[Drive, ...]
    machine_config: MachineConfiguration = MachineConfiguration()
    network_interfaces: tuple[NetworkInterface, ...] = ()
    vsock: Vsock | None = None
    logger: Logger | None = None
