"""Snapshots: what can be loaded where, and what is answered to a file that is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.box import Box, box
from conformance.conftest import QUIET

pytestmark = pytest.mark.guest

_LOAD = "Load snapshot error: Failed to restore from snapshot: "
_STATE = _LOAD + "Failed to get snapshot state from file: Failed to load snapshot state from file: "


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, kernel: str) -> Path:
    """A folder with the `state` and the `memory` of a small guest without devices."""
    folder = tmp_path_factory.mktemp("saved")
    with box(folder) as opened:
        for path, body in {
            "/machine-config": {"vcpu_count": 1, "mem_size_mib": 64},
            "/boot-source": {"kernel_image_path": kernel, "boot_args": QUIET},
            "/mmds": {"a": "b"},
            "/actions": {"action_type": "InstanceStart"},
        }.items():
            assert opened.call("PUT", path, body).status == 204
        assert opened.call("PATCH", "/vm", {"state": "Paused"}).status == 204
        paths = {"snapshot_path": str(folder / "state"), "mem_file_path": str(folder / "memory")}
        assert opened.call("PUT", "/snapshot/create", paths).status == 204
    return folder


def body(saved: Path, **more: Any) -> dict[str, Any]:
    backend = {"backend_type": "File", "backend_path": str(saved / "memory")}
    return {"snapshot_path": str(saved / "state"), "mem_backend": backend, **more}


@pytest.mark.parametrize(("resume", "state"), [(False, "Paused"), (True, "Running")])
def test_a_restored_guest_is_paused_unless_told_otherwise(own: Box, saved: Path, resume: bool, state: str) -> None:
    assert own.call("PUT", "/mmds", {"kept": "until the load"}).status == 204  # allowed before a load
    assert own.call("PUT", "/snapshot/load", body(saved, resume_vm=resume)).status == 204
    assert own.call("GET", "/").json["state"] == state
    assert own.call("GET", "/machine-config").json["mem_size_mib"] == 64
    assert own.call("GET", "/vm/config").json["boot-source"]["boot_args"] == QUIET
    again = own.call("PUT", "/snapshot/load", body(saved))
    assert again.fault == "The requested operation is not supported after starting the microVM."


def test_the_old_names_of_fields_are_deprecated(own: Box, saved: Path) -> None:
    old = {"snapshot_path": str(saved / "state"), "mem_file_path": str(saved / "memory"), "enable_diff_snapshots": True}
    reply = own.call("PUT", "/snapshot/load", old)
    assert reply.status == 204
    assert "\r\nDeprecation: true" in reply.head
    assert "PUT /snapshot/load: mem_file_path and enable_diff_snapshots fields are deprecated." in own.log()


def test_several_guests_share_one_snapshot(own: Box, tmp_path_factory: pytest.TempPathFactory, saved: Path) -> None:
    with box(tmp_path_factory.mktemp("other")) as other:
        for each in (own, other):
            assert each.call("PUT", "/snapshot/load", body(saved, resume_vm=True)).status == 204
        assert [each.call("GET", "/").json["state"] for each in (own, other)] == ["Running", "Running"]


@pytest.fixture
def refused(own: Box) -> Callable[[dict[str, Any]], str]:
    """Load, and expect a fault that ends the process."""

    def load(what: dict[str, Any]) -> str:
        reply = own.call("PUT", "/snapshot/load", what)
        assert reply.status == 400
        assert own.process.wait(10) == 1
        return reply.fault

    return load


def spoilt(saved: Path, folder: Path, data: Callable[[bytes], bytes]) -> dict[str, Any]:
    path = folder / "spoilt"
    path.write_bytes(data((saved / "state").read_bytes()))
    return body(saved, snapshot_path=str(path))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (lambda _: b"", "IO Error: File too short to contain CRC"),
        (lambda state: state[:-20] + b"x" + state[-19:], "CRC64 validation failed"),
    ],
)
def test_a_spoilt_state_file_is_refused(
    refused: Callable[[dict[str, Any]], str],
    saved: Path,
    tmp_path: Path,
    data: Callable[[bytes], bytes],
    text: str,
) -> None:
    assert text in refused(spoilt(saved, tmp_path, data))


def test_memory_that_is_not_there_is_refused(refused: Callable[[dict[str, Any]], str], saved: Path) -> None:
    missing = body(saved, mem_backend={"backend_type": "File", "backend_path": "/nowhere"})
    assert refused(missing) == (
        f"{_LOAD}Failed to load guest memory: Error creating guest memory from file: Failed to load guest memory: "
        "No such file or directory (os error 2)"
    )


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ({"network_overrides": [{"iface_id": "none", "host_dev_name": "tap"}]}, "Unknown Network Device."),
        ({"vsock_override": {"uds_path": "v.sock"}}, "Unknown Vsock Device."),
    ],
)
def test_an_override_of_what_the_guest_has_not_is_refused(
    refused: Callable[[dict[str, Any]], str], saved: Path, override: dict[str, Any], text: str
) -> None:
    assert text in refused(body(saved, **override))


def test_what_comes_before_a_load_may_not_configure_a_machine(own: Box, saved: Path) -> None:
    assert own.call("PUT", "/logger", {"level": "Debug"}).status == 204
    assert own.call("PUT", "/entropy", {}).status == 204
    assert own.call("PUT", "/snapshot/load", body(saved)).fault == (
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources."
    )
    assert own.call("GET", "/").json["state"] == "Not started"
