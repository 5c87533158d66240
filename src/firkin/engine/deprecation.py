"""Calls that use what is going away: the line for the log, in Firecracker's words. Pure."""

from __future__ import annotations

from msgspec import UNSET

from firkin.engine.routing import Call
from firkin.fcapi.machine import MachineConfiguration, MachineConfigurationPatch
from firkin.fcapi.mmds import MmdsConfig, MmdsVersion
from firkin.fcapi.snapshot import SnapshotLoad
from firkin.fcapi.vsock import Vsock


def notice(call: Call) -> str | None:
    """What to say of a call; such a call is answered with `Deprecation: true`. None where nothing is deprecated."""
    what = f"{call.route.method} {call.route.path}"
    match call.body:
        case MachineConfiguration() | MachineConfigurationPatch() if call.body.cpu_template is not UNSET:
            return f"{what}: cpu_template field is deprecated."
        case Vsock() if call.body.vsock_id is not UNSET:
            return f"{what}: vsock_id field is deprecated."
        case MmdsConfig(version=MmdsVersion.V1):
            return f"{what}: V1 is deprecated. Use V2 instead."
        case SnapshotLoad() if call.body.mem_file_path is not None or call.body.enable_diff_snapshots:
            return f"{what}: mem_file_path and enable_diff_snapshots fields are deprecated."
    return None
