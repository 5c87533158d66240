"""The calls that bring a snapshot back."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from firkin.fcapi.snapshot import SnapshotLoad
from firkin.vmm.restore import calls

STATE, MEMORY = Path("/snapshots/1/state"), Path("/snapshots/1/memory")


@pytest.mark.parametrize("resume", [True, False])
def test_a_snapshot_is_loaded_on_taps_and_sockets_of_its_own(resume: bool) -> None:
    metrics, load = calls(STATE, MEMORY, tap="fktap7", resume=resume)
    assert (metrics.method, metrics.path) == ("PUT", "/metrics")
    assert (load.method, load.path) == ("PUT", "/snapshot/load")
    body = msgspec.to_builtins(load.body)
    assert body["snapshot_path"] == str(STATE)
    assert body["mem_backend"] == {"backend_type": "File", "backend_path": str(MEMORY)}
    assert body["network_overrides"] == ({"iface_id": "eth0", "host_dev_name": "fktap7"},)
    assert body["vsock_override"] == {"uds_path": "vsock.sock"}
    assert (body["resume_vm"], body["clock_realtime"]) == (resume, False)


def test_the_engine_understands_it() -> None:
    _, load = calls(STATE, MEMORY, tap="fktap7")
    assert msgspec.json.decode(msgspec.json.encode(load.body), type=SnapshotLoad) == load.body
    assert load.body.complaint() is None
