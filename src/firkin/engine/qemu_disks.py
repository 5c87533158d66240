"""Drives as QEMU takes them: nodes on its command line and over its monitor. Pure: descriptors are numbers here.

Each drive is a throttle node, whose name and limits stay, on a raw node for the file it has now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from firkin.engine import throttle
from firkin.fcapi.limits import RateLimiter

SECTOR = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One drive: an open file, and how it is to be used. `durable` makes the guest's flushes count.

    With `is_vhost_user` the descriptor is a connection to the process that serves it and decides everything else.
    """

    fd: int
    read_only: bool = False
    durable: bool = False
    is_block_device: bool = False
    size: int = 0
    aio: str = "threads"
    limiter: RateLimiter | None = None
    is_vhost_user: bool = False


@dataclass(frozen=True, slots=True)
class DiskNames:
    """What the parts of drive number `number` are called."""

    number: int

    @property
    def node(self) -> str:
        return f"drive{self.number}"

    @property
    def device(self) -> str:
        return f"disk{self.number}"

    @property
    def group(self) -> str:
        return f"limit{self.number}"

    def file(self, generation: int) -> str:
        """The node of the file that came after `generation` others."""
        return f"{self.node}-{generation}"


def disk_argv(number: int, disk: Disk) -> list[str]:
    names = DiskNames(number)
    if disk.is_vhost_user:
        return [
            *("-chardev", f"socket,id={names.node},fd={disk.fd}"),
            *("-device", f"vhost-user-blk,chardev={names.node},id={names.device},num-queues=1"),
        ]
    fdset = number + 1
    limits = throttle.drive_limits(disk.limiter, throttle.burst_of(disk.limiter))
    device = f"virtio-blk-device,drive={names.node},id={names.device}"
    if disk.limiter and disk.limiter.ops:
        device += ",request-merging=off"  # it would count several of the guest's operations as one
    return [
        *("-add-fd", f"fd={disk.fd},set={fdset}"),
        *("-object", _json({"qom-type": "throttle-group", "id": names.group, "limits": limits})),
        *("-blockdev", _json(file_node(names.file(0), fdset, disk))),
        *("-blockdev", _json(throttle_node(names, names.file(0), read_only=disk.read_only))),
        *("-device", device),
    ]


def file_node(name: str, fdset: int, disk: Disk) -> dict[str, Any]:
    """The options of a node for a file whose descriptor is in `fdset`."""
    node: dict[str, Any] = {
        "driver": "raw",
        "node-name": name,
        "read-only": disk.read_only,
        "cache": {"direct": False, "no-flush": not disk.durable},
        "file": {
            "driver": "host_device" if disk.is_block_device else "file",
            "filename": f"/dev/fdset/{fdset}",
            "aio": disk.aio,
            "locking": "off",  # as upstream: who shares a disk is the caller's business
        },
    }
    if disk.size % SECTOR:
        node["size"] = disk.size - disk.size % SECTOR  # as upstream: an incomplete last sector does not exist
    return node


def throttle_node(names: DiskNames, file: str, *, read_only: bool) -> dict[str, Any]:
    """The options of the node that the guest's device reads and writes."""
    return {
        "driver": "throttle",
        "node-name": names.node,
        "throttle-group": names.group,
        "read-only": read_only,
        "file": file,
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
