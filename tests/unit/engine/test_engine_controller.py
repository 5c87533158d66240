from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import FakeHypervisor

from firkin.engine.controller import Controller
from firkin.engine.faults import NOT_AFTER_START, NOT_BEFORE_START
from firkin.engine.http import Request, Response
from firkin.engine.journal import Journal
from firkin.engine.vmm import Vmm
from firkin.fcapi.routes import ROUTES, Phase, Route


class Api(FakeHypervisor):
    """The controller, spoken to as a client would."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        journal = Journal("unit")
        journal.open(str(folder / "log"))
        self.controller = Controller(Vmm(journal, self))

    def raw(self, method: str, path: str, body: bytes | None = None) -> Response:
        return self.controller.answer(Request(method, path, body))

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        response = self.raw(method, path, None if body is None else json.dumps(body).encode())
        return response.status, json.loads(response.body) if response.body else None

    def fault(self, method: str, path: str, body: Any = None) -> str:
        status, reply = self.call(method, path, body)
        assert status == 400
        return str(reply["fault_message"])

    def boot(self) -> None:
        assert self.call("PUT", "/actions", {"action_type": "InstanceStart"}) == (204, None)


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(bytes(512))
    return str(path)


BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/boot-source"): {"kernel_image_path": "/dev/null"},
    ("PUT", "/machine-config"): {"vcpu_count": 1, "mem_size_mib": 128},
    ("PATCH", "/machine-config"): {"vcpu_count": 2},
    ("PUT", "/drives/{id}"): {"drive_id": "a", "is_root_device": False, "path_on_host": "/dev/null"},
    ("PUT", "/network-interfaces/{id}"): {"iface_id": "a", "host_dev_name": "tap"},
    ("PUT", "/vsock"): {"guest_cid": 3, "uds_path": "v"},
    ("PUT", "/logger"): {},
    ("PATCH", "/vm"): {"state": "Paused"},
    ("PUT", "/cpu-config"): {},
    ("PATCH", "/drives/{id}"): {"drive_id": "a"},
    ("PUT", "/pmem/{id}"): {"id": "a", "path_on_host": "/dev/null"},
    ("PATCH", "/pmem/{id}"): {"id": "a"},
    ("PATCH", "/network-interfaces/{id}"): {"iface_id": "a"},
    ("PUT", "/balloon"): {"amount_mib": 1, "deflate_on_oom": True},
    ("PATCH", "/balloon"): {"amount_mib": 1},
    ("PATCH", "/balloon/statistics"): {"stats_polling_interval_s": 1},
    ("PATCH", "/balloon/hinting/start"): {},
    ("PATCH", "/balloon/hinting/stop"): None,
    ("PUT", "/entropy"): {},
    ("PUT", "/serial"): {},
    ("PUT", "/hotplug/memory"): {"total_size_mib": 128},
    ("PATCH", "/hotplug/memory"): {"requested_size_mib": 128},
    ("PUT", "/metrics"): {"metrics_path": "m"},
    ("PUT", "/mmds/config"): {"network_interfaces": []},
    ("PUT", "/snapshot/create"): {"snapshot_path": "s", "mem_file_path": "m"},
    ("PUT", "/snapshot/load"): {"snapshot_path": "s", "mem_file_path": "m"},
}
WRITES = [route for route in ROUTES if route.reply is None and route.phase is not Phase.ALWAYS]


@pytest.mark.parametrize("route", WRITES, ids=lambda route: f"{route.method} {route.path}")
def test_each_write_is_refused_in_the_phase_it_does_not_belong_to(api: Api, route: Route) -> None:
    text = NOT_BEFORE_START
    if not route.phase & Phase.RUNTIME:
        api.boot()
        text = NOT_AFTER_START
    body = BODIES.get((route.method, route.path))
    assert api.fault(route.method, route.path.replace("{id}", "a"), body) == text


@pytest.mark.parametrize("started", [False, True])
def test_reads_work_in_every_phase(api: Api, started: bool) -> None:
    if started:
        api.boot()
    assert api.call("GET", "/")[1] == {
        "id": "unit",
        "state": "Running" if started else "Not started",
        "vmm_version": "1.16.1",
        "app_name": "Firecracker",
    }
    assert api.call("GET", "/version") == (200, {"firecracker_version": "1.16.1"})
    assert api.call("GET", "/machine-config/")[1]["mem_size_mib"] == 128


@pytest.mark.parametrize(
    ("method", "path", "body", "text"),
    [
        ("PATCH", "/boot-source", {}, "Invalid request method and/or path: PATCH boot-source."),
        ("PUT", "/snapshot/nonsense", {}, "Invalid request method and/or path: PUT /snapshot/nonsense."),
        ("DELETE", "/nowhere/else", None, "Empty Delete request."),
        ("DELETE", "/drives/a", {}, "Invalid request method and/or path: DELETE drives."),
        ("PUT", "/snapshot", {}, "Missing snapshot operation type."),
        ("GET", "/balloon/nonsense", None, "Unrecognized GET request path `nonsense`."),
        ("PUT", "/mmds/nonsense", {}, "Unrecognized PUT request path `nonsense`."),
        ("GET", "/machine-config", {}, "GET request cannot have a body."),
        ("PUT", "/machine-config", None, "Empty PUT request."),
        ("PATCH", "/machine-config", None, "Empty PATCH request."),
        ("PATCH", "/machine-config", {}, "Empty PATCH request."),
        ("PUT", "/drives", {}, "The ID cannot be empty."),
        ("PUT", "/drives/", {}, "The ID cannot be empty."),
        ("PUT", "/drives/a-b", {}, "API Resource IDs can only contain alphanumeric characters and underscores."),
        (
            "PUT",
            "/drives/b",
            {"drive_id": "a", "is_root_device": False},
            "The id from the path does not match the id from the body!",
        ),
        (
            "PUT",
            "/network-interfaces/b",
            {"iface_id": "a", "host_dev_name": "t"},
            "The id from the path [b] does not match the id from the body [a]!",
        ),
        (
            "PUT",
            "/machine-config",
            {"vcpu_count": 1},
            (
                "An error occurred when deserializing the json body of a request: "
                "missing field `mem_size_mib` at line 1 column 17."
            ),
        ),
        (
            "PUT",
            "/machine-config",
            {"vcpu_count": 33, "mem_size_mib": 128},
            (
                "Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an "
                "even number if SMT is enabled."
            ),
        ),
        (
            "PUT",
            "/machine-config",
            {"vcpu_count": 2, "mem_size_mib": 3, "huge_pages": "2M"},
            "Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size.",
        ),
        (
            "PUT",
            "/boot-source",
            {"kernel_image_path": "/nonexistent"},
            "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)",
        ),
        (
            "PUT",
            "/boot-source",
            {"kernel_image_path": "/dev/null", "initrd_path": "/nonexistent"},
            (
                "Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. "
                "No such file or directory (os error 2)"
            ),
        ),
        (
            "PUT",
            "/drives/a",
            {"drive_id": "a", "is_root_device": True, "path_on_host": "/nonexistent"},
            (
                "Drive config error: Unable to create the virtio block device: Virtio backend error: "
                "Error manipulating the backing file: No such file or directory (os error 2) /nonexistent"
            ),
        ),
        (
            "PUT",
            "/drives/a",
            {"drive_id": "a", "is_root_device": True},
            "Drive config error: Unable to create the virtio block device: Invalid block config.",
        ),
        (
            "PUT",
            "/network-interfaces/a",
            {"iface_id": "a", "host_dev_name": "t" * 16},
            "Network config error: Could not create the network device: Open tap device failed: Invalid interface name",
        ),
        (
            "PUT",
            "/network-interfaces/a",
            {"iface_id": "a", "host_dev_name": "t", "mtu": 67},
            "Network config error: Could not create the network device: MTU 67 is out of range [68, 65535]",
        ),
        (
            "PUT",
            "/logger",
            {"log_path": "/nonexistent/log"},
            "Logger error: Failed to open target file: No such file or directory (os error 2)",
        ),
        ("PUT", "/actions", {"action_type": "FlushMetrics"}, NOT_BEFORE_START),
        ("PUT", "/actions", {"action_type": "SendCtrlAltDel"}, NOT_BEFORE_START),
    ],
)
def test_faults_have_upstreams_words(api: Api, method: str, path: str, body: Any, text: str) -> None:
    assert api.fault(method, path, body) == text


def test_bad_json_is_a_fault(api: Api) -> None:
    response = api.raw("PUT", "/machine-config", b"{")
    assert response.status == 400
    assert b"An error occurred when deserializing the json body of a request: " in (response.body or b"")


def test_a_second_root_is_refused_but_the_first_may_be_changed(api: Api, disk: str) -> None:
    root = {"drive_id": "r", "is_root_device": True, "path_on_host": disk}
    assert api.call("PUT", "/drives/r", root)[0] == 204
    assert api.call("PUT", "/drives/r", root | {"is_read_only": True})[0] == 204
    assert api.fault("PUT", "/drives/s", root | {"drive_id": "s"}) == (
        "Drive config error: A root block device already exists!"
    )


def test_root_comes_first_and_the_rest_in_put_order(api: Api, disk: str) -> None:
    for name, is_root in (("b", False), ("a", False), ("r", True), ("b", False)):
        api.call("PUT", f"/drives/{name}", {"drive_id": name, "is_root_device": is_root, "path_on_host": disk})
    assert [drive["drive_id"] for drive in api.call("GET", "/vm/config")[1]["drives"]] == ["r", "b", "a"]


def test_full_config_shows_every_key(api: Api, disk: str) -> None:
    drive = {"drive_id": "r", "is_root_device": True, "path_on_host": disk}
    api.call("PUT", "/drives/r", drive)
    api.call("PUT", "/boot-source", {"kernel_image_path": disk, "boot_args": "quiet"})
    assert api.call("GET", "/vm/config")[1] == {
        "balloon": None,
        "drives": [
            {
                **drive,
                "partuuid": None,
                "cache_type": "Unsafe",
                "is_read_only": False,
                "rate_limiter": None,
                "io_engine": "Sync",
                "socket": None,
            }
        ],
        "boot-source": {"kernel_image_path": disk, "initrd_path": None, "boot_args": "quiet"},
        "cpu-config": None,
        "logger": None,
        "machine-config": {
            "vcpu_count": 1,
            "mem_size_mib": 128,
            "smt": False,
            "track_dirty_pages": False,
            "huge_pages": "None",
        },
        "metrics": None,
        "mmds-config": None,
        "network-interfaces": [],
        "vsock": None,
        "entropy": None,
        "pmem": [],
        "memory-hotplug": None,
    }


def test_a_deprecated_field_is_answered_with_a_header(api: Api) -> None:
    body = b'{"vcpu_count": 1, "mem_size_mib": 128, "cpu_template": "T2"}'
    assert api.raw("PUT", "/machine-config", body).deprecated
    assert api.call("GET", "/machine-config")[1]["cpu_template"] == "T2"


def test_pause_and_resume_are_idempotent(api: Api) -> None:
    api.boot()
    for state, shown, paused in (("Paused", "Paused", True), ("Resumed", "Running", False)):
        for _ in range(2):
            assert api.call("PATCH", "/vm", {"state": state}) == (204, None)
            assert api.call("GET", "/")[1]["state"] == shown
            assert api.guest.paused is paused


def test_a_failed_start_can_be_mended(api: Api) -> None:
    api.fails = "Start microvm error: no"
    assert api.fault("PUT", "/actions", {"action_type": "InstanceStart"}) == "Start microvm error: no"
    assert api.call("GET", "/")[1]["state"] == "Not started"
    api.fails = ""
    api.boot()
    assert api.fault("PUT", "/actions", {"action_type": "InstanceStart"}) == NOT_AFTER_START


def test_control_alt_delete_reaches_a_guest_that_runs(api: Api) -> None:
    assert api.fault("PUT", "/actions", {"action_type": "SendCtrlAltDel"}) == NOT_BEFORE_START
    api.boot()
    assert api.call("PUT", "/actions", {"action_type": "SendCtrlAltDel"}) == (204, None)
    assert api.guest.pressed == 1
    assert api.call("PUT", "/actions", {"action_type": "FlushMetrics"}) == (204, None)


def test_the_log_tells_of_requests_and_answers(api: Api, tmp_path: Path) -> None:
    api.raw("PUT", "/logger", b'{"level": "info"}')
    api.call("PATCH", "/boot-source", {})
    text = (tmp_path / "log").read_text()
    assert '[unit:fc_api] The API server received a Put request on "/logger" with body "{"level": "info"}".' in text
    assert "The request was executed successfully. Status code: 204 No Content." in text
    assert (
        "Received Error. Status code: 400 Bad Request. Message: Invalid request method and/or path: PATCH boot-source."
        in text
    )
