"""One table, many readers: the client makes calls of it, the engine dispatches by it, tests and docs walk it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from typing import Any

from msgspec import Raw

from firkin.fcapi.balloon import (
    Balloon,
    BalloonStats,
    BalloonStatsUpdate,
    BalloonUpdate,
    HintingStart,
    HintingStatus,
)
from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.cpu import CpuConfig
from firkin.fcapi.drives import Drive, DrivePatch
from firkin.fcapi.entropy import Entropy
from firkin.fcapi.hotplug import MemoryHotplug, MemoryHotplugStatus, MemoryHotplugUpdate
from firkin.fcapi.instance import Action, FirecrackerVersion, InstanceInfo, Vm
from firkin.fcapi.logger import Logger
from firkin.fcapi.machine import MachineConfiguration, MachineConfigurationPatch
from firkin.fcapi.metrics import MetricsConfig
from firkin.fcapi.mmds import MmdsConfig
from firkin.fcapi.network import NetworkInterface, NetworkInterfacePatch
from firkin.fcapi.pmem import Pmem, PmemPatch
from firkin.fcapi.serial import Serial
from firkin.fcapi.snapshot import SnapshotCreate, SnapshotLoad
from firkin.fcapi.vsock import Vsock


class Phase(Flag):
    """When a call is legal: before InstanceStart, after it, or both."""

    PREBOOT = auto()
    RUNTIME = auto()
    ALWAYS = PREBOOT | RUNTIME


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `{id}` in the path stands for a resource id of letters, digits and underscores.

    A body of `Raw` is any JSON. `boot_specific` marks calls after which a snapshot can no longer be loaded.
    """

    method: str
    path: str
    phase: Phase
    body: type[Any] | None = None
    reply: type[Any] | None = None
    body_optional: bool = False
    boot_specific: bool = False


ID = "{id}"

_PREBOOT, _RUNTIME, _ALWAYS = Phase.PREBOOT, Phase.RUNTIME, Phase.ALWAYS

ROUTES = (
    Route("GET", "/", _ALWAYS, reply=InstanceInfo),
    Route("GET", "/version", _ALWAYS, reply=FirecrackerVersion),
    Route("GET", "/vm/config", _ALWAYS, reply=VmConfig),
    Route("PATCH", "/vm", _RUNTIME, body=Vm),
    Route("PUT", "/actions", _ALWAYS, body=Action),
    Route("PUT", "/boot-source", _PREBOOT, body=BootSource, boot_specific=True),
    Route("GET", "/machine-config", _ALWAYS, reply=MachineConfiguration),
    Route("PUT", "/machine-config", _PREBOOT, body=MachineConfiguration, boot_specific=True),
    Route("PATCH", "/machine-config", _PREBOOT, body=MachineConfigurationPatch, boot_specific=True),
    Route("PUT", "/cpu-config", _PREBOOT, body=CpuConfig),
    # After the start a PUT or DELETE of these three is a hotplug.
    Route("PUT", "/drives/{id}", _ALWAYS, body=Drive, boot_specific=True),
    Route("PATCH", "/drives/{id}", _RUNTIME, body=DrivePatch),
    Route("DELETE", "/drives/{id}", _RUNTIME),
    Route("PUT", "/pmem/{id}", _ALWAYS, body=Pmem, boot_specific=True),
    Route("PATCH", "/pmem/{id}", _RUNTIME, body=PmemPatch),
    Route("DELETE", "/pmem/{id}", _RUNTIME),
    Route("PUT", "/network-interfaces/{id}", _ALWAYS, body=NetworkInterface, boot_specific=True),
    Route("PATCH", "/network-interfaces/{id}", _RUNTIME, body=NetworkInterfacePatch),
    Route("DELETE", "/network-interfaces/{id}", _RUNTIME),
    Route("PUT", "/vsock", _PREBOOT, body=Vsock, boot_specific=True),
    Route("GET", "/balloon", _ALWAYS, reply=Balloon),
    Route("PUT", "/balloon", _PREBOOT, body=Balloon, boot_specific=True),
    Route("PATCH", "/balloon", _RUNTIME, body=BalloonUpdate),
    Route("GET", "/balloon/statistics", _RUNTIME, reply=BalloonStats),
    Route("PATCH", "/balloon/statistics", _RUNTIME, body=BalloonStatsUpdate),
    Route("GET", "/balloon/hinting/status", _RUNTIME, reply=HintingStatus),
    Route("PATCH", "/balloon/hinting/start", _RUNTIME, body=HintingStart, body_optional=True),
    Route("PATCH", "/balloon/hinting/stop", _RUNTIME, body_optional=True),
    Route("PUT", "/entropy", _PREBOOT, body=Entropy, boot_specific=True),
    Route("PUT", "/serial", _PREBOOT, body=Serial),
    Route("PUT", "/hotplug/memory", _PREBOOT, body=MemoryHotplug, boot_specific=True),
    Route("PATCH", "/hotplug/memory", _RUNTIME, body=MemoryHotplugUpdate),
    Route("GET", "/hotplug/memory", _RUNTIME, reply=MemoryHotplugStatus),
    Route("PUT", "/logger", _PREBOOT, body=Logger),
    Route("PUT", "/metrics", _PREBOOT, body=MetricsConfig),
    Route("GET", "/mmds", _ALWAYS, reply=Raw),
    Route("PUT", "/mmds", _ALWAYS, body=Raw),
    Route("PATCH", "/mmds", _ALWAYS, body=Raw),
    Route("PUT", "/mmds/config", _PREBOOT, body=MmdsConfig, boot_specific=True),
    Route("PUT", "/snapshot/create", _RUNTIME, body=SnapshotCreate),
    Route("PUT", "/snapshot/load", _PREBOOT, body=SnapshotLoad),
)
