"""From a configured machine to QEMU's command line. Pure: descriptors are numbers here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from firkin.engine import boot_timer, throttle
from firkin.engine.accel import Accel
from firkin.engine.qemu_disks import Disk, disk_argv
from firkin.fcapi.balloon import Balloon
from firkin.fcapi.entropy import Entropy

PROGRAM = "qemu-system-x86_64"
# Without spawn=deny: what that forbids the library of the twins does, but for the making of a twin.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,resourcecontrol=deny"
BALLOON = "balloon"  # the device's id
# A snapshot's stream has device states only, without the configuration that a migration starts with.
_INCOMING = ["-S", "-incoming", "defer", "-global", "migration.send-configuration=off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network interface: an open tap, and the descriptor that QEMU asks the engine on to serve it."""

    fd: int
    vhost_fd: int
    mac: str
    mtu: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """The whole machine. Devices come in upstream's order: balloon, disks, interfaces, `extra` arguments, entropy.

    Without a kernel it waits, stopped, for the device state of a snapshot.
    """

    name: str
    vcpus: int = 1
    smt: bool = False
    memory_mib: int = 128
    memory_fd: int | None  # None: it is QEMU's own
    memory_shared: bool = True  # else QEMU writes to a private copy
    kernel_fd: int | None = None
    initrd_fd: int | None = None
    command_line: str = ""
    acpi: bool
    names_mmio_devices: bool = True  # whether QEMU appends the devices' positions to the command line
    balloon: Balloon | None = None
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    extra: tuple[str, ...] = ()
    entropy: Entropy | None = None
    monitor_fd: int
    console_fd: int
    sandbox: bool = True
    accel: Accel = Accel.TCG
    reports_boot: bool = False  # whether QEMU is to tell of stores to the boot timer's address


def qemu_argv(guest: Guest, program: str = PROGRAM) -> list[str]:
    """QEMU's argv."""
    start = _INCOMING if guest.kernel_fd is None else _kernel(guest)
    argv = [program, "-name", guest.name, *_machine(guest), *start, *_channels(guest)]
    argv += _balloon(guest.balloon)
    for number, disk in enumerate(guest.disks):
        argv += disk_argv(number, disk)
    for number, nic in enumerate(guest.nics):
        argv += _nic(number, nic)
    return [*argv, *guest.extra, *_entropy(guest.entropy), *(["-sandbox", SANDBOX] if guest.sandbox else [])]


def _machine(guest: Guest) -> list[str]:
    options = {
        "acpi": _switch(guest.acpi),
        "auto-kernel-cmdline": _switch(guest.names_mmio_devices),
        "x-option-roms": "off",
        "pit": "on",  # without PIT or PIC a guest hangs; without the clock it loses a second
        "pic": "on",
        "rtc": "on",
        "isa-serial": "on",
        "suppress-vmdesc": "on",  # nor with the description that it ends with
        "memory-backend": "memory",
    }
    memory: dict[str, object] = {
        "qom-type": "memory-backend-ram" if guest.memory_fd is None else "memory-backend-file",
        "id": "memory",
        "size": guest.memory_mib << 20,
        "share": guest.memory_shared,
    }
    if guest.memory_fd is not None:
        memory["mem-path"] = f"/proc/self/fd/{guest.memory_fd}"
    threads = 2 if guest.smt and guest.vcpus > 1 else 1
    return [
        *("-machine", "microvm," + ",".join(f"{name}={value}" for name, value in options.items())),
        *("-accel", guest.accel),
        # The largest model: programs built for recent processors run, and RDRAND feeds the guest's random pool early.
        # But for "fast" string moves: emulation does them a byte at a time, and guests that see them not move eight.
        *("-cpu", "host" if guest.accel is Accel.KVM else "max,-erms,-fsrm"),
        *("-smp", f"cpus={guest.vcpus},sockets=1,cores={guest.vcpus // threads},threads={threads}"),
        *("-m", f"{guest.memory_mib}M"),
        *("-object", _json(memory)),
        *("-global", "virtio-mmio.force-legacy=false"),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-device", "i8042"),  # reboot=k resets by it, and control-alt-delete comes through it
        *(boot_timer.ARGUMENTS if guest.reports_boot else ()),
    ]


def _kernel(guest: Guest) -> list[str]:
    argv = ["-kernel", f"/proc/self/fd/{guest.kernel_fd}", "-append", guest.command_line]
    if guest.initrd_fd is not None:
        argv += ["-initrd", f"/proc/self/fd/{guest.initrd_fd}"]
    return argv


def _channels(guest: Guest) -> list[str]:
    return [
        *("-chardev", f"socket,id=monitor,fd={guest.monitor_fd}"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=console,fd={guest.console_fd}"),
        *("-serial", "chardev:console"),
    ]


def _balloon(balloon: Balloon | None) -> list[str]:
    if balloon is None:
        return []
    oom, reporting = _switch(balloon.deflate_on_oom), _switch(balloon.free_page_reporting)
    return ["-device", f"virtio-balloon-device,id={BALLOON},deflate-on-oom={oom},free-page-reporting={reporting}"]


def _entropy(entropy: Entropy | None) -> list[str]:
    if entropy is None:
        return []
    device = "virtio-rng-device,rng=random"
    if quota := throttle.rng_quota(entropy.rate_limiter):
        device += ",max-bytes={},period={}".format(*quota)
    return ["-object", "rng-builtin,id=random", "-device", device]


def _nic(number: int, nic: Nic) -> list[str]:
    device = f"virtio-net-device,netdev=net{number},mac={nic.mac}"
    if nic.mtu is not None:
        device += f",host_mtu={nic.mtu}"
    return ["-netdev", f"tap,id=net{number},fd={nic.fd},vhost=on,vhostfd={nic.vhost_fd}", "-device", device]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _switch(on: bool) -> str:
    return "on" if on else "off"
