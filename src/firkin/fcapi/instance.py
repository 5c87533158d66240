"""The microVM itself: who it is, what it does, what it should do; and the shape of every failure."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from firkin.fcapi.wire import Wire


class InstanceState(StrEnum):
    NOT_STARTED = "Not started"
    RUNNING = "Running"
    PAUSED = "Paused"


class InstanceInfo(Wire, frozen=True, kw_only=True):
    """GET /."""

    id: str
    state: InstanceState
    vmm_version: str
    app_name: str


class FirecrackerVersion(Wire, frozen=True, kw_only=True):
    """GET /version."""

    firecracker_version: str


class ActionType(StrEnum):
    FLUSH_METRICS = "FlushMetrics"
    INSTANCE_START = "InstanceStart"
    SEND_CTRL_ALT_DEL = "SendCtrlAltDel"


class Action(Wire, frozen=True, kw_only=True):
    """PUT /actions."""

    rust: ClassVar[str] = "ActionBody"

    action_type: ActionType


class VmState(StrEnum):
    PAUSED = "Paused"
    RESUMED = "Resumed"


class Vm(Wire, frozen=True, kw_only=True):
    """PATCH /vm."""

    state: VmState


class Fault(Wire, frozen=True, kw_only=True):
    """Every 4xx body at the API level."""

    fault_message: str
