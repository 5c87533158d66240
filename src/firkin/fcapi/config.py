"""The config file: the whole machine in one JSON document, as `--config-file` takes it and GET /vm/config gives it."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from firkin.fcapi.balloon import Balloon
from firkin.fcapi.boot import BootSource
from firkin.fcapi.cpu import CpuConfig
from firkin.fcapi.drives import Drive
from firkin.fcapi.entropy import Entropy
from firkin.fcapi.hotplug import MemoryHotplug
from firkin.fcapi.logger import Logger
from firkin.fcapi.machine import DEFAULT_MACHINE, MachineConfiguration
from firkin.fcapi.metrics import MetricsConfig
from firkin.fcapi.mmds import MmdsConfig
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.pmem import Pmem
from firkin.fcapi.vsock import Vsock
from firkin.fcapi.wire import PathText

# In a file also the path of a template.
CpuTemplateOrPath = Annotated[PathText | CpuConfig, Meta(extra={"rust": "CustomCpuTemplateOrPath"})]


class VmConfig(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Unknown keys at this level are ignored, as upstream; inside an object they are errors."""

    rust: ClassVar[str] = "VmmConfig"

    balloon: Balloon | None = None
    drives: tuple[Drive, ...]
    boot_source: BootSource
    cpu_config: CpuTemplateOrPath | None = None
    logger: Logger | None = None
    machine_config: Annotated[MachineConfiguration, Meta(extra={"null": True})] = DEFAULT_MACHINE
    metrics: MetricsConfig | None = None
    mmds_config: MmdsConfig | None = None
    network_interfaces: tuple[NetworkInterface, ...] = ()
    vsock: Vsock | None = None
    entropy: Entropy | None = None
    pmem: tuple[Pmem, ...] = ()
    memory_hotplug: MemoryHotplug | None = None
