"""What the API answers about drives, balloon, random numbers, CPU templates, persistent and hotplugged memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import FakeGuest, FakeHypervisor

from firkin.engine.controller import Controller
from firkin.engine.http import Request
from firkin.engine.journal import Journal
from firkin.engine.resources import Resources
from firkin.engine.vmm import Vmm

NOT_FOUND = "Failed perform action on device: Device not found"
PATCH_DRIVE = "Drive config error: Unable to patch the block device: {} Please verify the request arguments."
JSON = "An error occurred when deserializing the json body of a request: "


class Api(FakeHypervisor):
    """The controller on a fake guest."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        journal = Journal("unit")
        journal.open(str(folder / "log"))
        self.vmm = Vmm(journal, self)
        self._controller = Controller(self.vmm)

    def start(self, resources: Resources) -> FakeGuest:
        self.guest = FakeGuest(resources)
        self.guest.live.begin()
        return self.guest

    def boot(self) -> None:
        self.ok("PUT", "/actions", {"action_type": "InstanceStart"})

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        response = self._controller.answer(Request(method, path, data))
        return response.status, json.loads(response.body) if response.body else None

    def ok(self, method: str, path: str, body: Any = None) -> None:
        assert self.call(method, path, body) == (204, None)

    def get(self, path: str) -> Any:
        status, body = self.call("GET", path)
        assert status == 200
        return body

    def fault(self, method: str, path: str, body: Any = None) -> str:
        status, reply = self.call(method, path, body)
        assert status == 400
        return str(reply["fault_message"])


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(tmp_path)


def put_drive(api: Api, folder: Path, size: int = 1024, **more: Any) -> Path:
    path = folder / f"disk{size}"
    path.write_bytes(bytes(size))
    api.ok("PUT", "/drives/d", {"drive_id": "d", "is_root_device": False, "path_on_host": str(path), **more})
    return path


def patch_drive(**more: Any) -> tuple[str, str, dict[str, Any]]:
    return "PATCH", "/drives/d", {"drive_id": "d", **more}


def test_devices_cannot_be_plugged_without_pci(api: Api) -> None:
    api.boot()
    drive = {"drive_id": "a", "is_root_device": False, "path_on_host": "/dev/null"}
    assert api.fault("PUT", "/drives/a", drive) == "PCI is not enabled"
    assert api.fault("PUT", "/pmem/a", {"id": "a", "path_on_host": "/dev/null"}) == "PCI is not enabled"
    for path in ("/drives/a", "/pmem/a"):
        assert api.fault("DELETE", path) == "PCI is not enabled"


@pytest.mark.parametrize(
    "body",
    [
        {"socket": "s", "path_on_host": "/dev/null"},
        {"socket": "s", "io_engine": "Sync"},
        {"socket": "s", "rate_limiter": {}},
        {"socket": "s", "is_read_only": False},
        {},
    ],
)
def test_a_drive_is_a_file_or_a_socket(api: Api, body: dict[str, Any]) -> None:
    text = "Drive config error: Unable to create the virtio block device: Invalid block config."
    assert api.fault("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, **body}) == text


def test_a_drive_needs_its_backend(api: Api) -> None:
    body = {"drive_id": "a", "is_root_device": False, "socket": "/nonexistent"}
    assert api.fault("PUT", "/drives/a", body) == (
        "Drive config error: Unable to create the virtio block device: Vhost user backend error: Vhost-user error: "
        "Failed to connect to UDS Unix stream: No such file or directory (os error 2)"
    )


def test_patching_a_drive_says_what_is_wrong(api: Api, tmp_path: Path) -> None:
    put_drive(api, tmp_path)
    api.boot()
    assert api.fault("PATCH", "/drives/x", {"drive_id": "x"}) == PATCH_DRIVE.format(NOT_FOUND)
    backend = "Block: Running method expected different backend."
    assert api.fault(*patch_drive()) == PATCH_DRIVE.format(backend)
    missing = "Block: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2)"
    assert api.fault(*patch_drive(path_on_host="/nonexistent")) == PATCH_DRIVE.format(f"{missing} /nonexistent")


def test_a_file_of_the_same_size_takes_the_old_ones_place(api: Api, tmp_path: Path) -> None:
    old = put_drive(api, tmp_path, is_read_only=True)
    new = tmp_path / "new"
    new.write_bytes(bytes(old.stat().st_size))
    api.boot()
    for generation in (1, 2):
        api.ok(*patch_drive(path_on_host=str(new)))
        monitor = api.guest.monitor
        assert monitor.last("blockdev-add")["node-name"] == f"drive0-{generation}"
        (options,) = monitor.last("blockdev-reopen")["options"]
        assert (options["file"], options["read-only"]) == (f"drive0-{generation}", True)
        assert monitor.last("blockdev-del") == {"node-name": f"drive0-{generation - 1}"}
        assert "stop" not in monitor.names
    assert api.get("/vm/config")["drives"][0]["path_on_host"] == str(new)


def test_a_new_size_is_announced_while_the_guest_stands_still(api: Api, tmp_path: Path) -> None:
    put_drive(api, tmp_path)
    new = tmp_path / "new"
    new.write_bytes(bytes(2048 + 100))
    api.boot()
    api.ok(*patch_drive(path_on_host=str(new)))
    names = api.guest.monitor.names
    assert names.index("stop") < names.index("block_resize") < names.index("cont")
    assert api.guest.monitor.last("block_resize") == {"node-name": "drive0", "size": 2048}
    assert new.stat().st_size == 2148


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("refused", ["blockdev-add", "blockdev-reopen", "block_resize", "add-fd"])
def test_a_drive_that_cannot_change_keeps_its_file(api: Api, tmp_path: Path, refused: str) -> None:
    old = put_drive(api, tmp_path)
    new = tmp_path / "new"
    new.write_bytes(bytes(4096))
    api.boot()
    monitor = api.guest.monitor
    monitor.refused = refused
    opened = descriptors()
    assert "refused" in api.fault(*patch_drive(path_on_host=str(new)))
    assert api.get("/vm/config")["drives"][0]["path_on_host"] == str(old)
    assert descriptors() == opened
    assert "stop" not in monitor.names or monitor.names[-1] != "stop"
    if refused == "block_resize":
        assert monitor.last("blockdev-reopen")["options"][0]["file"] == "drive0-0"
        assert monitor.names.count("stop") == monitor.names.count("cont") == 1


def test_new_limits_are_merged_with_the_old(api: Api, tmp_path: Path) -> None:
    put_drive(api, tmp_path, rate_limiter={"ops": {"size": 10, "refill_time": 1000}})
    api.boot()
    api.ok(*patch_drive(rate_limiter={"bandwidth": {"size": 4000, "refill_time": 2000}}))
    assert api.guest.monitor.last("qom-set") == {
        "path": "/objects/limit0",
        "property": "limits",
        "value": {"bps-total": 2000, "bps-total-max": 4000, "iops-total": 10, "iops-total-max": 10},
    }
    limiter = api.get("/vm/config")["drives"][0]["rate_limiter"]
    assert (limiter["ops"]["size"], limiter["bandwidth"]["size"]) == (10, 4000)


def stats(read: int) -> list[dict[str, Any]]:
    counts = dict.fromkeys(("wr_bytes", "rd_operations", "wr_operations", "flush_operations"), 1)
    return [{"qdev": "disk0", "stats": {"rd_bytes": read, **counts}}]


def test_a_used_up_burst_makes_way_for_the_bucket(api: Api, tmp_path: Path) -> None:
    bucket = {"size": 1000, "refill_time": 1000, "one_time_burst": 5000}
    put_drive(api, tmp_path, rate_limiter={"bandwidth": bucket})
    api.boot()
    monitor, timer = api.guest.monitor, api.guest.timer
    monitor.replies["query-blockstats"] = stats(4000)
    timer.pass_by()
    assert "qom-set" not in monitor.names
    monitor.replies["query-blockstats"] = stats(5000)
    timer.pass_by()
    assert monitor.last("qom-set")["value"]["bps-total-max"] == 1000
    assert timer.waiting == []


def test_a_burst_is_no_longer_watched_once_qemu_has_gone(api: Api, tmp_path: Path) -> None:
    put_drive(api, tmp_path, rate_limiter={"ops": {"size": 1, "refill_time": 1, "one_time_burst": 5}})
    api.boot()
    api.guest.monitor.refused = "query-blockstats"
    api.guest.timer.pass_by()
    assert api.guest.timer.waiting == []


def test_drives_count_what_they_do(api: Api, tmp_path: Path) -> None:
    put_drive(api, tmp_path)
    api.boot()
    api.guest.monitor.replies["query-blockstats"] = stats(512)
    assert api.guest.live.drives.counters() == {
        "d": {"read_bytes": 512, "write_bytes": 1, "read_count": 1, "write_count": 1, "flush_count": 1}
    }


BALLOON = {"amount_mib": 28, "deflate_on_oom": True, "stats_polling_interval_s": 1}


def test_a_balloon_is_shown_as_configured(api: Api) -> None:
    assert api.fault("GET", "/balloon") == "Balloon config error: No balloon device found."
    api.ok("PUT", "/balloon", BALLOON)
    shown = {**BALLOON, "free_page_hinting": False, "free_page_reporting": False}
    assert api.get("/balloon") == api.get("/vm/config")["balloon"] == shown


def test_balloon_and_memory_must_fit(api: Api) -> None:
    too_large = "Balloon config error: Amount of pages requested is too large."
    assert api.fault("PUT", "/balloon", {**BALLOON, "amount_mib": 129}) == too_large
    api.ok("PUT", "/balloon", {**BALLOON, "amount_mib": 128})
    assert api.fault("PATCH", "/machine-config", {"mem_size_mib": 127}) == (
        "Machine config error: The memory size (MiB) is smaller than the previously set balloon device target size."
    )
    assert api.get("/machine-config")["mem_size_mib"] == 128


def test_hinting_is_refused_from_the_start(api: Api) -> None:
    assert "hinting is not supported" in api.fault("PUT", "/balloon", {**BALLOON, "free_page_hinting": True})
    api.ok("PUT", "/balloon", BALLOON)
    api.boot()
    text = "Balloon update error: Balloon: Attempting to use hinting when not enabled"
    assert api.fault("PATCH", "/balloon/hinting/start") == text
    assert api.fault("PATCH", "/balloon/hinting/stop") == text
    assert api.fault("GET", "/balloon/hinting/status") == text


def test_without_a_balloon_there_is_no_device(api: Api) -> None:
    api.boot()
    for path in ("/balloon", "/balloon/statistics"):
        assert api.fault("GET", path) == f"Internal VMM error: {NOT_FOUND}"
    assert api.fault("PATCH", "/balloon", {"amount_mib": 1}) == f"Balloon update error: {NOT_FOUND}"
    assert api.fault("PATCH", "/balloon/hinting/start") == f"Balloon update error: {NOT_FOUND}"


def test_the_target_is_what_the_guest_keeps(api: Api) -> None:
    api.ok("PUT", "/balloon", BALLOON)
    api.boot()
    assert api.guest.monitor.last("balloon") == {"value": 100 << 20}
    api.ok("PATCH", "/balloon", {"amount_mib": 128})
    assert api.guest.monitor.last("balloon") == {"value": 1 << 20}
    assert api.get("/balloon")["amount_mib"] == 128
    assert api.fault("PATCH", "/balloon", {"amount_mib": 129}) == (
        "Balloon update error: Balloon: Requested memory should be less than 128MiB"
    )
    api.guest.monitor.replies["x-query-virtio-status"] = {"started": False}
    assert api.fault("PATCH", "/balloon", {"amount_mib": 1}) == (
        "Balloon update error: Balloon: Device not activated yet."
    )


def test_statistics_have_what_the_guest_told(api: Api) -> None:
    api.ok("PUT", "/balloon", BALLOON)
    api.boot()
    sizes = {"target_pages": 7168, "actual_pages": 7168, "target_mib": 28, "actual_mib": 28}
    assert api.get("/balloon/statistics") == sizes
    told = {"stat-free-memory": 5, "stat-swap-in": 0, "stat-htlb-pgalloc": 2**64 - 1}
    api.guest.monitor.replies["qom-get"] = {"stats": told}
    assert api.get("/balloon/statistics") == {**sizes, "free_memory": 5, "swap_in": 0}


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0)])
def test_statistics_stay_on_or_off(api: Api, before: int, after: int) -> None:
    api.ok("PUT", "/balloon", {**BALLOON, "stats_polling_interval_s": before})
    api.boot()
    assert api.fault("PATCH", "/balloon/statistics", {"stats_polling_interval_s": after}) == (
        "Balloon update error: Balloon: Statistics cannot be enabled/disabled after activation."
    )
    api.ok("PATCH", "/balloon/statistics", {"stats_polling_interval_s": before})


def test_statistics_that_are_off_cannot_be_read(api: Api) -> None:
    api.ok("PUT", "/balloon", {**BALLOON, "stats_polling_interval_s": 0})
    api.boot()
    assert api.fault("GET", "/balloon/statistics") == (
        "Internal VMM error: Balloon: Received stats query when stats are disabled."
    )


def test_entropy_is_shown_with_what_limits_it(api: Api) -> None:
    api.ok("PUT", "/entropy", {})
    assert api.get("/vm/config")["entropy"] == {"rate_limiter": None}
    api.ok("PUT", "/entropy", {"rate_limiter": {"bandwidth": {"size": 0, "refill_time": 1}}})
    assert api.get("/vm/config")["entropy"] == {"rate_limiter": None}


CPU_FAULTS = [
    (
        {"cpuid_modifiers": [{"leaf": "1", "subleaf": "0x0", "flags": 0, "modifiers": []}]},
        (
            "No supported number system prefix found in value [1]. Make sure to prefix the number with '0x' for "
            "hexadecimal numbers or '0b' for binary numbers."
        ),
    ),
    (
        {"msr_modifiers": [{"addr": "0xzz", "bitmap": "0b1"}]},
        "Failed to parse string [0xzz] as a number for CPU template - ParseIntError { kind: InvalidDigit }",
    ),
    (
        {"msr_modifiers": [{"addr": "0x", "bitmap": "0b1"}]},
        "Failed to parse string [0x] as a number for CPU template - ParseIntError { kind: Empty }",
    ),
    (
        {"msr_modifiers": [{"addr": "0x100000000", "bitmap": "0b1"}]},
        "Failed to parse string [0x100000000] as a number for CPU template - ParseIntError { kind: PosOverflow }",
    ),
    (
        {"msr_modifiers": [{"addr": "0x1", "bitmap": "0b1q"}]},
        "Failed to parse string [0b1q] as a bitmap - unknown character: 113",
    ),
    (
        {
            "cpuid_modifiers": [
                {"leaf": "0x1", "subleaf": "0b0", "flags": 0, "modifiers": [{"register": "esi", "bitmap": "0b1"}]}
            ]
        },
        "Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]",
    ),
]


@pytest.mark.parametrize(("template", "text"), CPU_FAULTS)
def test_a_malformed_cpu_template_is_refused(api: Api, template: dict[str, Any], text: str) -> None:
    assert api.fault("PUT", "/cpu-config", template).startswith(f"{JSON}{text} at line 1 column ")


def test_a_cpu_template_is_accepted_and_said_to_have_no_effect(api: Api, tmp_path: Path) -> None:
    register = {"register": "eax", "bitmap": "0bx_01"}
    leaf = {"leaf": "0x80000001", "subleaf": "0b111", "flags": 0, "modifiers": [register]}
    api.ok("PUT", "/cpu-config", {"cpuid_modifiers": [leaf]})
    assert "The CPU template has no effect" in (tmp_path / "log").read_text()
    assert api.get("/vm/config")["cpu-config"] is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"total_size_mib": 1024, "block_size_mib": 1}, "Block size must not be lower than 2 MiB"),
        ({"total_size_mib": 1024, "block_size_mib": 3}, "Block size must be a power of 2"),
        ({"total_size_mib": 1024, "slot_size_mib": 1}, "Slot size must not be lower than 128 MiB"),
        (
            {"total_size_mib": 1024, "block_size_mib": 4, "slot_size_mib": 130},
            "Slot size must be a multiple of block size (4 MiB)",
        ),
        ({"total_size_mib": 64}, "Total size must not be lower than slot size (128 MiB)"),
        ({"total_size_mib": 1000}, "Total size must be a multiple of slot size (128 MiB)"),
        (
            {"total_size_mib": 1024},
            "not supported by this engine; a balloon can take memory and give it back.",
        ),
    ],
)
def test_hotpluggable_memory_is_checked_and_refused(api: Api, body: dict[str, int], text: str) -> None:
    assert api.fault("PUT", "/hotplug/memory", body) == f"Memory hotplug config error: {text}"


def test_what_was_never_configured_is_not_found(api: Api) -> None:
    api.boot()
    assert api.fault("GET", "/hotplug/memory") == f"Internal VMM error: {NOT_FOUND}"
    patch = {"requested_size_mib": 128}
    assert api.fault("PATCH", "/hotplug/memory", patch) == f"Memory hotplug update error: {NOT_FOUND}"
    assert api.fault("PATCH", "/pmem/a", {"id": "a"}) == (
        f"Pmem config error: Unable to patch the pmem device: {NOT_FOUND} Please verify the request arguments."
    )


def test_persistent_memory_is_checked_and_refused(api: Api, tmp_path: Path) -> None:
    pmem = {"id": "p", "path_on_host": "/nonexistent", "root_device": True}
    assert api.fault("PUT", "/pmem/p", pmem) == (
        "Pmem config error: Unable to create the virtio-pmem device: Error accessing backing file: "
        "No such file or directory (os error 2)"
    )
    put_drive(api, tmp_path, is_root_device=True)
    assert api.fault("PUT", "/pmem/p", pmem) == (
        "Pmem config error: Attempt to add pmem as a root device while the root device defined as a block device"
    )
    assert "not supported by this engine" in api.fault("PUT", "/pmem/p", {"id": "p", "path_on_host": "/dev/null"})
