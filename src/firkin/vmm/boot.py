"""From what is known about a machine to Firecracker's config, and from that to API calls. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.drives import Drive
from firkin.fcapi.instance import Action, ActionType
from firkin.fcapi.machine import MachineConfiguration
from firkin.fcapi.metrics import MetricsConfig
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.vsock import Vsock
from firkin.paths import METRICS, VSOCK_SOCKET
from firkin.spec import MachineSpec

# All paths are relative to the engine's working directory, the machine's run folder: a unix socket's path ends at
# 107 bytes, and a jail has another root.
API_SOCKET = "api.sock"
INITRD = "initrd.cpio"
GUEST_CID = 3
NIC = "eth0"

# A triple fault ends the machine on every engine; `panic=-1` makes a panic do the same at once.
BOOT_ARGS = "console=ttyS0 reboot=t panic=-1 quiet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a boot needs beside the spec: files on the host and the machine's place in its network."""

    kernel: Path
    root: Path
    tap: str
    mac: str


def vm_config(spec: MachineSpec, parts: Parts) -> VmConfig:
    """The config that a person would write by hand for `--config-file`."""
    return VmConfig(
        boot_source=BootSource(
            kernel_image_path=str(parts.kernel),
            initrd_path=INITRD,
            boot_args=f"{BOOT_ARGS} {spec.boot_args}".rstrip(),
        ),
        drives=(Drive(drive_id="rootfs", path_on_host=str(parts.root), is_root_device=True, is_read_only=True),),
        machine_config=MachineConfiguration(vcpu_count=spec.vcpus, mem_size_mib=spec.memory_mib),
        network_interfaces=(NetworkInterface(iface_id=NIC, host_dev_name=parts.tap, guest_mac=parts.mac),),
        vsock=Vsock(guest_cid=GUEST_CID, uds_path=VSOCK_SOCKET),
        metrics=MetricsConfig(metrics_path=METRICS),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One API call."""

    method: str
    path: str
    body: Any


def calls(config: VmConfig) -> list[Call]:
    """The calls that configure and start this machine, in Firecracker's own order."""
    return [
        Call("PUT", "/machine-config", config.machine_config),
        Call("PUT", "/boot-source", config.boot_source),
        *(Call("PUT", f"/drives/{drive.drive_id}", drive) for drive in config.drives),
        *(Call("PUT", f"/network-interfaces/{nic.iface_id}", nic) for nic in config.network_interfaces),
        *([Call("PUT", "/vsock", config.vsock)] if config.vsock else []),
        *([Call("PUT", "/metrics", config.metrics)] if config.metrics else []),
        Call("PUT", "/actions", Action(action_type=ActionType.INSTANCE_START)),
    ]


def to_json(value: Any) -> str:
    """A body or config as a person reads it: indented, absent fields left out."""
    plain = msgspec.to_builtins(value)
    return msgspec.json.format(msgspec.json.encode(_without_none(plain)), indent=2).decode()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
