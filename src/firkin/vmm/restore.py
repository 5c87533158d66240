"""From a snapshot's files to the API calls that bring its machine back. Pure."""

from __future__ import annotations

from pathlib import Path

from firkin.fcapi.metrics import MetricsConfig
from firkin.fcapi.snapshot import MemBackend, MemBackendType, NetworkOverride, SnapshotLoad, VsockOverride
from firkin.paths import METRICS, VSOCK_SOCKET
from firkin.vmm.boot import NIC, Call


def calls(state: Path, memory: Path, *, tap: str, resume: bool = True) -> list[Call]:
    """The calls that make a fresh engine this machine, on a tap and sockets of its own; with `resume` it runs then.

    Its clock stands where it was until its agent is told the time: an engine can bring a guest back faster that way.
    """
    load = SnapshotLoad(
        snapshot_path=str(state),
        mem_backend=MemBackend(backend_path=str(memory), backend_type=MemBackendType.FILE),
        network_overrides=(NetworkOverride(iface_id=NIC, host_dev_name=tap),),
        vsock_override=VsockOverride(uds_path=VSOCK_SOCKET),
        resume_vm=resume,
    )
    return [Call("PUT", "/metrics", MetricsConfig(metrics_path=METRICS)), Call("PUT", "/snapshot/load", load)]
