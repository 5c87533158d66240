"""What an engine has to know of a QEMU that another one started, to take over a copy of it."""

from __future__ import annotations

import msgspec


class Numbers(msgspec.Struct, frozen=True):
    """Descriptors in QEMU, by their numbers there. `devices` are in the order of the devices that the engine serves."""

    monitor: int
    console: int
    control: int
    calls: int
    devices: list[int]


class Interface(msgspec.Struct, frozen=True):
    """What QEMU asked of a tap once and for all."""

    offloads: int
    header_size: int


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A QEMU that stands still.

    `memory_address` is where it has the first byte of guest memory; `connections` are the pairs of host and guest port
    that the guest believes to be open on its vsock device.
    """

    numbers: Numbers
    qemu_version: str
    memory_address: int
    disks: list[tuple[int, int]]  # device and inode of each drive's file
    interfaces: list[Interface]
    connections: list[tuple[int, int]]
