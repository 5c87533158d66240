"""One table, many readers: the client makes calls of it, the engine dispatches by it, tests and docs walk it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from typing import Any

from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.drives import Drive
from firkin.fcapi.instance import Action, FirecrackerVersion, InstanceInfo, Vm
from firkin.fcapi.logger import Logger
from firkin.fcapi.machine import MachineConfiguration, MachineConfigurationPatch
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.vsock import Vsock


class Phase(Flag):
    """When a call is legal: before InstanceStart, after it, or both."""

    PREBOOT = auto()
    RUNTIME = auto()
    ALWAYS = PREBOOT | RUNTIME


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `{id}` in the path stands for a resource id of letters, digits and underscores."""

    method: str
    path: str
    phase: Phase
    body: type[Any] | None = None
    reply: type[Any] | None = None


ID = "{id}"

ROUTES = (
    Route("GET", "/", Phase.ALWAYS, reply=InstanceInfo),
    Route("GET", "/version", Phase.ALWAYS, reply=FirecrackerVersion),
    Route("GET", "/vm/config", Phase.ALWAYS, reply=VmConfig),
    Route("PUT", "/actions", Phase.ALWAYS, body=Action),
    Route("PUT", "/boot-source", Phase.PREBOOT, body=BootSource),
    Route("GET", "/machine-config", Phase.ALWAYS, reply=MachineConfiguration),
    Route("PUT", "/machine-config", Phase.PREBOOT, body=MachineConfiguration),
    Route("PATCH", "/machine-config", Phase.PREBOOT, body=MachineConfigurationPatch),
    Route("PUT", "/drives/{id}", Phase.PREBOOT, body=Drive),
    Route("PUT", "/network-interfaces/{id}", Phase.PREBOOT, body=NetworkInterface),
    Route("PUT", "/vsock", Phase.PREBOOT, body=Vsock),
    Route("PUT", "/logger", Phase.PREBOOT, body=Logger),
    Route("PATCH", "/vm", Phase.RUNTIME, body=Vm),
)
