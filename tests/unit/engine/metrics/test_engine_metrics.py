from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import FakeHypervisor
from engine_monitor import FakeTimer

from firkin.engine.controller import Controller
from firkin.engine.http import Request
from firkin.engine.journal import Journal
from firkin.engine.metrics import schema
from firkin.engine.metrics.lines import Lines
from firkin.engine.mmds.metrics import Metrics as MmdsCounters
from firkin.engine.net.counters import Counters as NetCounters
from firkin.engine.vmm import Vmm
from firkin.engine.vsock.muxer import Counters as VsockCounters
from firkin.fcapi.drives import Drive

FIELDS = {  # as many as upstream's own schema has in each group
    "api_server": 2,
    "balloon": 12,
    "block": 20,
    "deprecated_api": 1,
    "get_api_requests": 5,
    "i8042": 6,
    "interrupts": 2,
    "latencies_us": 10,
    "logger": 4,
    "memory_hotplug": 18,
    "mmds": 13,
    "net": 27,
    "patch_api_requests": 12,
    "pmem": 6,
    "put_api_requests": 26,
    "seccomp": 1,
    "signals": 7,
    "uart": 7,
    "vcpu": 10,
    "vmm": 1,
    "vsock": 20,
    "entropy": 7,
}


class World:
    """An engine without QEMU whose metrics go to a file."""

    def __init__(self, folder: Path) -> None:
        journal = Journal("unit")
        journal.open(str(folder / "log"))
        self.host, self.timer = FakeHypervisor(), FakeTimer()
        self.vmm = Vmm(journal, self.host, self.timer)
        self.controller = Controller(self.vmm)
        self.path = folder / "metrics"

    def call(self, method: str, path: str, body: Any = None) -> int:
        data = None if body is None else json.dumps(body).encode()
        return self.controller.answer(Request(method, path, data)).status

    def configure(self) -> None:
        assert self.call("PUT", "/metrics", {"metrics_path": str(self.path)}) == 204

    def start(self) -> None:
        assert self.call("PUT", "/actions", {"action_type": "InstanceStart"}) == 204

    def flush(self) -> dict[str, Any]:
        assert self.call("PUT", "/actions", {"action_type": "FlushMetrics"}) == 204
        return self.lines()[-1]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_schema_has_as_many_fields_as_upstreams() -> None:
    assert {group: len(fields) for group, fields in schema.GROUPS.items()} == FIELDS
    assert all(len(set(fields)) == len(fields) for fields in schema.GROUPS.values())


def test_a_line_has_every_field_and_no_other(world: World, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    world.configure()
    drive = {"drive_id": "rootfs", "is_root_device": True, "path_on_host": str(tmp_path / "disk")}
    assert world.call("PUT", "/drives/rootfs", drive) == 204
    world.start()
    (line,) = world.lines()
    assert abs(line.pop("utc_timestamp_ms") - time.time() * 1000) < 1000
    assert line.keys() == {*schema.GROUPS, "block_rootfs"}
    for group, values in line.items():
        assert list(values) == list(schema.fields_of(group)), group
        for field, value in values.items():
            expected = {"min_us": 0, "max_us": 0, "sum_us": 0} if field.endswith("_agg") else int
            assert value == expected or type(value) is expected, (group, field)


def test_counters_tell_what_was_added_since_the_last_line(world: World) -> None:
    world.configure()
    world.call("GET", "/")
    world.start()
    assert world.call("DELETE", "/drives/a") == 400  # counted nowhere
    for count in (2, 1):
        for _ in range(count):
            world.call("GET", "/")
        assert world.flush()["get_api_requests"]["instance_info_count"] == count
    assert [line["get_api_requests"]["instance_info_count"] for line in world.lines()] == [1, 2, 1]


def test_what_is_understood_and_refused_is_no_failure(world: World) -> None:
    world.configure()
    world.call("PUT", "/drives/a", {"drive_id": "a", "is_root_device": True, "path_on_host": "/nonexistent"})
    world.call("PUT", "/drives/a", {"drive_id": "b", "is_root_device": True})
    world.call("PUT", "/drives/a", {"nonsense": 1})
    world.call("PUT", "/drives/a")
    world.call("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128, "cpu_template": "T2"})
    world.start()
    line = world.lines()[0]
    assert line["put_api_requests"]["drive_count"] == 3
    assert line["put_api_requests"]["drive_fails"] == 2
    assert line["put_api_requests"]["actions_count"] == 1
    assert line["deprecated_api"]["deprecated_http_api_calls"] == 1


def test_latencies_are_shown_as_they_are(world: World) -> None:
    world.configure()
    world.start()
    world.call("PATCH", "/vm", {"state": "Paused"})
    shown = [world.flush()["latencies_us"]["pause_vm"] for _ in range(2)]
    assert shown == [world.vmm.latencies.us["pause_vm"]] * 2


def test_drives_are_told_one_by_one_and_together(world: World) -> None:
    stats = {"rd_operations": 3, "wr_operations": 1, "flush_operations": 0, "rd_bytes": 4096, "wr_bytes": 512}
    world.host.guest.monitor.replies["query-blockstats"] = [
        {"qdev": "disk0", "stats": stats},
        {"qdev": "disk1", "stats": stats},
    ]
    drives = world.host.guest.live.drives
    for name in ("a", "b"):
        config = Drive(drive_id=name, is_root_device=False, path_on_host="/dev/null")
        drives._drives.put(config)
        world.vmm.resources.drives.put(config)
    world.configure()
    world.start()
    (line,) = world.lines()
    assert line["block_a"]["read_bytes"] == line["block_b"]["read_bytes"] == 4096
    assert line["block"]["read_bytes"] == 8192
    assert world.flush()["block"]["read_bytes"] == 0


def test_a_line_comes_each_minute_but_not_of_a_paused_guest(world: World) -> None:
    world.configure()
    world.start()
    world.timer.pass_by()
    assert len(world.lines()) == 2
    world.call("PATCH", "/vm", {"state": "Paused"})
    world.timer.pass_by()
    assert len(world.lines()) == 2
    world.call("PATCH", "/vm", {"state": "Resumed"})
    world.timer.pass_by()
    assert len(world.lines()) == 3


def test_the_last_line_tells_of_a_panic(world: World) -> None:
    world.configure()
    world.start()
    assert world.vmm.metrics is not None
    world.vmm.metrics.end(panicked=True)
    assert [line["vmm"]["panic_count"] for line in world.lines()] == [0, 1]


def fault(world: World, path: Path) -> str:
    body = json.dumps({"metrics_path": str(path)}).encode()
    reply = world.controller.answer(Request("PUT", "/metrics", body)).body
    return str(json.loads(reply or b"{}").get("fault_message"))


def test_metrics_are_configured_once_and_where_a_file_can_be(world: World, tmp_path: Path) -> None:
    what = "Metrics error: Cannot initialize the metrics system due to bad user input: "
    assert fault(world, tmp_path / "no" / "file") == what + "No such file or directory (os error 2)"
    world.configure()
    assert fault(world, world.path) == what + "Reinitialization of metrics not allowed."


def test_a_pipe_that_nobody_reads_loses_lines_whole_and_says_how_many(world: World) -> None:
    os.mkfifo(world.path)
    reader = os.open(world.path, os.O_RDONLY | os.O_NONBLOCK)
    world.configure()
    world.start()
    flush = {"action_type": "FlushMetrics"}
    lost = sum(world.call("PUT", "/actions", flush) == 400 for _ in range(40))
    assert lost > 5
    read = b""
    while True:
        try:
            read += os.read(reader, 1 << 20)
        except BlockingIOError:
            break
    world.call("PUT", "/actions", flush)
    read += os.read(reader, 1 << 20)
    os.close(reader)
    lines = [json.loads(line) for line in read.splitlines()]
    assert sum(line["logger"]["missed_metrics_count"] for line in lines) == lost


def test_a_source_that_starts_anew_does_not_count_backwards() -> None:
    lines = Lines()
    told = []
    for total in (5, 9, 2):
        told.append(lines.next({"uart": {"write_count": total}}, 0)["uart"]["write_count"])
        lines.told()
    assert told == [5, 4, 2]


@pytest.mark.parametrize(
    ("group", "counters"), [("net", NetCounters()), ("vsock", VsockCounters()), ("mmds", MmdsCounters())]
)
def test_who_counts_uses_names_that_are_shown(group: str, counters: Any) -> None:
    assert asdict(counters).keys() <= set(schema.fields_of(group))
