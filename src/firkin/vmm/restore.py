"""From a snapshot's files to the API calls that bring its machine back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firkin.fcapi.metrics import MetricsConfig
from firkin.fcapi.snapshot import MemBackend, MemBackendType, NetworkOverride, SnapshotLoad, VsockOverride
from firkin.paths import METRICS, VSOCK_SOCKET
from firkin.vmm.boot import NIC, Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a snapshot is: the engine's two files."""

    state: Path
    memory: Path


def calls(files: Files, tap: str) -> list[Call]:
    """The calls that make a fresh engine this machine, on a tap and sockets of its own, and let it run."""
    load = SnapshotLoad(
        snapshot_path=str(files.state),
        mem_backend=MemBackend(backend_path=str(files.memory), backend_type=MemBackendType.FILE),
        network_overrides=(NetworkOverride(iface_id=NIC, host_dev_name=tap),),
        vsock_override=VsockOverride(uds_path=VSOCK_SOCKET),
        resume_vm=True,
        clock_realtime=True,
    )
    return [Call("PUT", "/metrics", MetricsConfig(metrics_path=METRICS)), Call("PUT", "/snapshot/load", load)]
