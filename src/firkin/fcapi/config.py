"""The config file: the whole machine in one JSON document, as `--config-file` takes it and GET /vm/config gives it."""

from __future__ import annotations

import msgspec

from firkin.fcapi.boot import BootSource
from firkin.fcapi.drives import Drive
from firkin.fcapi.logger import Logger
from firkin.fcapi.machine import DEFAULT_MACHINE, MachineConfiguration
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.vsock import Vsock


class VmConfig(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Unknown keys at this level are ignored, as upstream; inside an object they are errors.

    The untyped ones are resources whose shape is not described here yet; they stay visible, so that a reader can refuse
    what it cannot do.
    """

    balloon: object | None = None
    drives: tuple[Drive, ...]
    boot_source: BootSource
    cpu_config: object | None = None
    logger: Logger | None = None
    machine_config: MachineConfiguration = DEFAULT_MACHINE
    metrics: object | None = None
    mmds_config: object | None = None
    network_interfaces: tuple[NetworkInterface, ...] = ()
    vsock: Vsock | None = None
    entropy: object | None = None
    pmem: tuple[object, ...] = ()
    memory_hotplug: object | None = None
