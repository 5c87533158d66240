"""A spec becomes the config a person would write, and that becomes API calls."""

from __future__ import annotations

import json
from pathlib import Path

from firkin.spec import MachineSpec
from firkin.vmm.boot import Parts, calls, to_json, vm_config

PARTS = Parts(kernel=Path("/k/vmlinux"), root=Path("/i/root.squashfs"), tap="fk0", mac="06:00:c0:a8:05:03")


def test_the_config_reads_as_in_firecrackers_documents() -> None:
    config = json.loads(to_json(vm_config(MachineSpec(vcpus=2, memory_mib=512, boot_args="debug"), PARTS)))
    assert config["boot-source"]["kernel_image_path"] == "/k/vmlinux"
    assert config["boot-source"]["boot_args"].endswith(" quiet debug")
    assert config["machine-config"]["vcpu_count"] == 2
    assert config["drives"][0]["is_root_device"] is True
    assert config["network-interfaces"] == [
        {"iface_id": "eth0", "host_dev_name": "fk0", "guest_mac": "06:00:c0:a8:05:03"}
    ]
    assert config["vsock"] == {"guest_cid": 3, "uds_path": "vsock.sock"}


def test_the_last_call_starts_the_machine() -> None:
    made = calls(vm_config(MachineSpec(), PARTS))
    assert [call.path for call in made] == [
        "/machine-config",
        "/boot-source",
        "/drives/rootfs",
        "/network-interfaces/eth0",
        "/vsock",
        "/metrics",
        "/actions",
    ]
