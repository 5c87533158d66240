from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_fakes import FakeHypervisor

from firkin.engine import config_file
from firkin.engine.journal import Journal
from firkin.engine.vmm import Vmm


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
    assert boot(vmm, balloon={"amount_mib": 1, "deflate_on_oom": True}) == (
        "Configuration for VMM from one single json failed: balloon: not supported by this engine"
    )


def test_a_missing_field_is_named(vmm: Vmm) -> None:
    with pytest.raises(config_file.ConfigFailed, match="Invalid JSON: missing field `drives`"):
        config_file.boot(vmm, b'{"boot-source": {"kernel_image_path": "/dev/null"}}')
