"""Every route in both phases, and the words of every refusal that can be provoked."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from conformance.box import Box, box
from conformance.cases import BODIES, JSON, NOT_AFTER, NOT_BEFORE, PATHS, RUNNING, VALUES, Mistake
from firkin.engine.metrics import schema
from firkin.fcapi.routes import ROUTES, Phase, Route


def name(route: Route) -> str:
    return f"{route.method} {route.path}"


def refused(vmm: Box, route: Route) -> str:
    """The fault of a call that makes sense."""
    reply = vmm.call(route.method, route.path.replace("{id}", "a"), BODIES.get((route.method, route.path)))
    assert reply.status == 400, reply
    return reply.fault


@pytest.mark.parametrize("route", [r for r in ROUTES if not r.phase & Phase.PREBOOT], ids=name)
def test_what_needs_a_guest_is_refused_before_the_start(fresh: Box, route: Route) -> None:
    assert refused(fresh, route) == NOT_BEFORE


@pytest.mark.guest
@pytest.mark.parametrize("route", [r for r in ROUTES if not r.phase & Phase.RUNTIME], ids=name)
def test_what_configures_is_refused_after_the_start(running: Box, route: Route) -> None:
    assert refused(running, route) == NOT_AFTER


@pytest.mark.parametrize("mistake", [*PATHS, *JSON, *VALUES], ids=str)
def test_a_mistake_has_upstreams_words(fresh: Box, mistake: Mistake, differs: bool) -> None:
    reply = fresh.call(mistake.method, mistake.path, mistake.body)
    assert reply.status == 400
    assert reply.fault == (mistake.ours if differs and mistake.ours else mistake.fault)


@pytest.mark.guest
@pytest.mark.parametrize("mistake", RUNNING, ids=str)
def test_a_mistake_of_a_running_guest_has_upstreams_words(running: Box, mistake: Mistake, differs: bool) -> None:
    reply = running.call(mistake.method, mistake.path, mistake.body)
    assert reply.status == 400
    assert reply.fault == (mistake.ours if differs and mistake.ours else mistake.fault)


def test_a_fresh_vmm_describes_itself(fresh: Box) -> None:
    info = fresh.call("GET", "/").json
    assert info.items() >= {"id": "anonymous-instance", "state": "Not started", "app_name": "Firecracker"}.items()
    assert fresh.call("GET", "/version").json == {"firecracker_version": info["vmm_version"]}
    assert fresh.call("GET", "/mmds").json == {}
    assert fresh.call("GET", "/machine-config").json == {
        "vcpu_count": 1,
        "mem_size_mib": 128,
        "smt": False,
        "track_dirty_pages": False,
        "huge_pages": "None",
    }


def test_each_configuring_call_succeeds_and_shows_in_the_full_configuration(own: Box) -> None:
    disk = own.folder / "disk"
    disk.write_bytes(bytes(1 << 20))
    limiter = {"bandwidth": {"size": 1000, "refill_time": 100}}
    calls = {
        "/logger": {"level": "Info"},
        "/machine-config": {"vcpu_count": 2, "mem_size_mib": 256, "track_dirty_pages": True},
        "/boot-source": {"kernel_image_path": str(disk), "boot_args": "quiet"},
        "/drives/a": {"drive_id": "a", "is_root_device": True, "path_on_host": str(disk), "rate_limiter": limiter},
        "/vsock": {"guest_cid": 3, "uds_path": str(own.folder / "v.sock")},
        "/balloon": {"amount_mib": 1, "deflate_on_oom": True},
        "/entropy": {},
        "/serial": {"serial_out_path": str(own.folder / "serial")},
        "/cpu-config": {},
        "/metrics": {"metrics_path": str(own.folder / "metrics")},
        "/mmds": {"b": 1, "a": {"c": "d"}},
    }
    for path, body in calls.items():
        assert own.call("PUT", path, body).status == 204, path
    assert own.call("PATCH", "/machine-config", {"vcpu_count": 1}).status == 204
    assert own.call("PATCH", "/mmds", {"b": None}).status == 204
    assert own.call("GET", "/mmds").json == {"a": {"c": "d"}}
    shown = own.call("GET", "/vm/config").json
    assert list(shown["drives"]) == [
        {
            "drive_id": "a",
            "partuuid": None,
            "is_root_device": True,
            "cache_type": "Unsafe",
            "is_read_only": False,
            "path_on_host": str(disk),
            "rate_limiter": {"bandwidth": {"size": 1000, "one_time_burst": None, "refill_time": 100}, "ops": None},
            "io_engine": "Sync",
            "socket": None,
        }
    ]
    assert shown["machine-config"]["vcpu_count"] == 1
    assert shown["boot-source"] == {"kernel_image_path": str(disk), "initrd_path": None, "boot_args": "quiet"}
    assert shown["vsock"] == {"guest_cid": 3, "uds_path": str(own.folder / "v.sock")}
    assert shown["logger"] is None
    assert shown["metrics"] is None
    again = own.call("PUT", "/metrics", {"metrics_path": str(own.folder / "other")})
    assert again.fault.endswith("bad user input: Reinitialization of metrics not allowed.")
    load = own.call("PUT", "/snapshot/load", {"snapshot_path": "s", "mem_file_path": "m"})
    assert load.fault == (
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources."
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/machine-config", {"vcpu_count": 1, "mem_size_mib": 128, "cpu_template": "None"}),
        ("/vsock", {"guest_cid": 3, "uds_path": "v.sock", "vsock_id": "v"}),
    ],
)
def test_what_is_deprecated_says_so_in_a_header(own: Box, path: str, body: dict[str, object]) -> None:
    if "uds_path" in body:
        body = body | {"uds_path": str(own.folder / "v.sock")}
    reply = own.call("PUT", path, body)
    assert reply.status == 204
    assert "\r\nDeprecation: true" in reply.head


def test_a_vsock_socket_may_be_bound_again_but_not_over_a_file(own: Box) -> None:
    body = {"guest_cid": 3, "uds_path": str(own.folder / "v.sock")}
    assert [own.call("PUT", "/vsock", body).status for _ in range(2)] == [204, 204]
    (own.folder / "taken").touch()
    assert own.call("PUT", "/vsock", body | {"uds_path": str(own.folder / "taken")}).fault == (
        "Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix socket: "
        "Address in use (os error 98)"
    )


def test_a_second_root_is_refused(own: Box) -> None:
    disk = own.folder / "disk"
    disk.write_bytes(bytes(512))
    drive = {"drive_id": "a", "is_root_device": True, "path_on_host": str(disk)}
    assert own.call("PUT", "/drives/a", drive).status == 204
    reply = own.call("PUT", "/drives/b", drive | {"drive_id": "b"})
    assert reply.fault == "Drive config error: A root block device already exists!"


def test_a_metadata_store_has_a_limit(tmp_path_factory: pytest.TempPathFactory) -> None:
    with box(tmp_path_factory.mktemp("limit"), "--mmds-size-limit", "100") as opened:
        assert opened.call("PUT", "/mmds", {"a": "b"}).status == 204
        reply = opened.call("PATCH", "/mmds", {"c": "x" * 200})
        assert (reply.status, reply.fault) == (
            413,
            "MMDS limit exceeded error: The MMDS patch request doesn't fit.",
        )


@pytest.mark.guest
def test_a_guest_is_paused_resumed_and_asked(running: Box) -> None:
    for state, shown in (("Paused", "Paused"), ("Paused", "Paused"), ("Resumed", "Running"), ("Resumed", "Running")):
        assert running.call("PATCH", "/vm", {"state": state}).status == 204
        assert running.call("GET", "/").json["state"] == shown
    assert running.call("GET", "/balloon").json["stats_polling_interval_s"] == 1
    assert running.call("GET", "/balloon/statistics").json.keys() >= {
        "target_pages",
        "actual_pages",
        "target_mib",
        "actual_mib",
    }
    assert running.call("PATCH", "/drives/data", {"drive_id": "data", "rate_limiter": {}}).status == 204


@pytest.mark.guest
def test_a_snapshot_is_made_of_a_paused_guest_only(running: Box) -> None:
    paths = {"snapshot_path": str(running.folder / "state"), "mem_file_path": str(running.folder / "memory")}
    assert running.call("PATCH", "/vm", {"state": "Paused"}).status == 204
    assert running.call("PUT", "/snapshot/create", paths).status == 204
    assert (running.folder / "memory").stat().st_size == 128 << 20
    assert running.call("GET", "/").json["state"] == "Paused"
    assert running.call("PATCH", "/vm", {"state": "Resumed"}).status == 204


def test_a_snapshot_that_is_not_there_ends_the_process(own: Box) -> None:
    reply = own.call("PUT", "/snapshot/load", {"snapshot_path": "/nowhere", "mem_file_path": "/nowhere"})
    assert reply.fault == (
        "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: Failed to open "
        "snapshot file: No such file or directory (os error 2)"
    )
    assert own.process.wait(10) == 1


def _metrics_once(running: Box, *wanted: tuple[str, str]) -> list[dict[str, Any]]:
    """Every line, once all the numbers that are waited for have come."""
    deadline = time.monotonic() + 20
    while True:
        assert running.call("PUT", "/actions", {"action_type": "FlushMetrics"}).status == 204
        lines = [json.loads(line) for line in (running.folder / "metrics").read_text().splitlines()]
        if all(any(line[group][field] for line in lines) for group, field in wanted):
            return lines
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.guest
def test_metrics_are_lines_of_json(running: Box) -> None:
    # The kernel looks for partitions, and complains that it has no root.
    lines = _metrics_once(running, ("block_data", "read_bytes"), ("uart", "write_count"))
    assert len(lines) >= 2
    for line in lines:
        del line["utc_timestamp_ms"]
        assert line.keys() == {*schema.GROUPS, "block_data"}
        for group, values in line.items():
            assert values.keys() == set(schema.fields_of(group)), group
    assert lines[0]["put_api_requests"]["drive_count"] >= 1
