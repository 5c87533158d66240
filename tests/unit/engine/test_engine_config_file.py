from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_fakes import FakeHypervisor

from firkin.engine import config_file
from firkin.engine.journal import Journal
from firkin.engine.vmm import Vmm
from firkin.fcapi import codec


@pytest.fixture
def vmm(tmp_path: Path) -> Vmm:
    journal = Journal("unit")
    journal.open(str(tmp_path / "log"))
    return Vmm(journal, FakeHypervisor())


def boot(vmm: Vmm, **changes: object) -> str:
    config: dict[str, object] = {
        "boot-source": {"kernel_image_path": "/dev/null"},
        "drives": [],
        "balloon": None,
        "serial": {},
    }
    try:
        config_file.boot(vmm, json.dumps(config | changes).encode())
    except config_file.ConfigFailed as error:
        return str(error)
    return ""


def test_nulls_and_unknown_keys_at_the_top_are_fine(vmm: Vmm) -> None:
    assert boot(vmm) == ""
    assert vmm.state == "Running"


def test_words_differ_from_those_of_the_api(vmm: Vmm) -> None:
    assert boot(vmm, **{"machine-config": {"vcpu_count": 0, "mem_size_mib": 1}}).startswith(
        "Configuration for VMM from one single json failed: VM config error: The number of vCPUs"
    )
    drive = {"drive_id": "a", "is_root_device": True, "path_on_host": "/nonexistent"}
    assert boot(vmm, drives=[drive]).startswith(
        "Configuration for VMM from one single json failed: Block device error: Unable to create"
    )


def test_what_cannot_be_done_is_refused(vmm: Vmm) -> None:
    pmem = {"id": "p", "path_on_host": "/dev/null"}
    assert "Pmem device error: Unable to create the virtio-pmem device: not supported" in boot(vmm, pmem=[pmem])
    assert "Memory hotplug config error: not supported" in boot(vmm, **{"memory-hotplug": {"total_size_mib": 128}})


def test_a_cpu_template_may_be_a_path(vmm: Vmm, tmp_path: Path) -> None:
    template = tmp_path / "template"
    assert "CPU config error: No such file or directory (os error 2)" in boot(vmm, **{"cpu-config": str(template)})
    template.write_text("{")
    assert "CPU config error: EOF while parsing an object" in boot(vmm, **{"cpu-config": str(template)})
    template.write_text('{"msr_modifiers": [{"addr": "0x10", "bitmap": "0bx1"}]}')
    assert boot(vmm, **{"cpu-config": str(template)}) == ""
    assert "The CPU template has no effect" in (tmp_path / "log").read_text()


def test_the_full_config_is_the_file_that_it_came_from(vmm: Vmm, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(1024))
    limiter = {
        "bandwidth": {"size": 1000, "one_time_burst": None, "refill_time": 100},
        "ops": {"size": 10, "one_time_burst": 5, "refill_time": 1000},
    }
    drive = {
        "drive_id": "root",
        "partuuid": "deadbeef-01",
        "is_root_device": True,
        "cache_type": "Writeback",
        "is_read_only": True,
        "path_on_host": str(tmp_path / "disk"),
        "rate_limiter": limiter,
        "io_engine": "Async",
        "socket": None,
    }
    config = {
        "balloon": {
            "amount_mib": 16,
            "deflate_on_oom": True,
            "stats_polling_interval_s": 2,
            "free_page_hinting": False,
            "free_page_reporting": True,
        },
        "drives": [
            drive,
            drive | {"drive_id": "data", "is_root_device": False, "partuuid": None, "rate_limiter": None},
        ],
        "boot-source": {"kernel_image_path": "/dev/null", "initrd_path": "/dev/null", "boot_args": "quiet"},
        "cpu-config": None,
        "logger": None,
        "machine-config": {
            "vcpu_count": 2,
            "mem_size_mib": 256,
            "smt": True,
            "track_dirty_pages": True,
            "huge_pages": "None",
        },
        "metrics": None,
        "mmds-config": None,
        "network-interfaces": [],
        "vsock": {"guest_cid": 3, "uds_path": str(tmp_path / "vsock")},
        "entropy": {"rate_limiter": limiter},
        "pmem": [],
        "memory-hotplug": None,
    }
    assert boot(vmm, **config) == ""
    shown = json.loads(codec.encode(vmm.resources.describe()))
    assert shown == config
    assert list(shown) == list(config)
    vmm.resources.release_files()
    assert vmm.resources.vsock_device is not None
    vmm.resources.vsock_device.close()


def test_a_missing_field_is_named(vmm: Vmm) -> None:
    with pytest.raises(config_file.ConfigFailed, match="Invalid JSON: missing field `drives`"):
        config_file.boot(vmm, b'{"boot-source": {"kernel_image_path": "/dev/null"}}')
