"""From configured resources to the guest that QEMU is asked for: which kernel, which line, which descriptors."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from firkin.engine import cmdline, io_uring, kernel
from firkin.engine.accel import Accel
from firkin.engine.faults import Area, Fault
from firkin.engine.qemu_argv import Guest
from firkin.engine.qemu_argv import Nic as GuestNic
from firkin.engine.qemu_disks import Disk
from firkin.engine.resources import Resources
from firkin.engine.resources.boot import Boot
from firkin.engine.resources.drives import OpenDrive
from firkin.engine.resources.nics import Nic
from firkin.fcapi.boot import DEFAULT_BOOT_ARGS
from firkin.fcapi.drives import CacheType, IoEngine

ACPI_SLOTS = 17  # as many as upstream has interrupts for
_BAD_KERNEL = (
    "System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel image: "
    "Kernel Loader: "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the host contributes."""

    name: str
    tsc_khz: int | None
    sandbox: bool
    other_user: bool  # whether QEMU runs as somebody who may not read what we may
    accel: Accel = Accel.TCG
    boot_timer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Descriptors that QEMU gets whatever the guest is."""

    monitor_fd: int
    console_fd: int
    memory_fd: int | None
    memory_shared: bool


def plan_boot(resources: Resources, around: Surroundings, channels: Channels) -> tuple[Guest, set[int]]:
    """A guest that boots, and descriptors made for it that are to be closed once QEMU has them.

    Raises:
        Fault: no kernel, one that cannot boot, or more devices than there are slots.
        OSError: a boot file cannot be copied.
    """
    boot = _bootable(resources.boot)
    acpi = not boot.facts.finds_mmio_by_cmdline
    guest = plan_restored(resources, around, channels, acpi=acpi)
    line = command_line(resources, boot, around, acpi=acpi)
    # QEMU adds the devices at the very end, where a `--` would hand them to init.
    by_us = not acpi and cmdline.has_init_arguments(line)
    if by_us:
        line = cmdline.with_mmio_devices(line, _count_devices(guest))
    kernel_fd, initrd_fd, made = _boot_files(boot, around.other_user)
    return (
        replace(guest, kernel_fd=kernel_fd, initrd_fd=initrd_fd, command_line=line, names_mmio_devices=not by_us),
        made,
    )


def plan_restored(resources: Resources, around: Surroundings, channels: Channels, *, acpi: bool) -> Guest:
    """A guest whose kernel is in memory already.

    Raises:
        Fault: more devices than there are slots.
    """
    guest = Guest(
        name=around.name,
        vcpus=resources.machine.vcpu_count,
        smt=resources.machine.smt,
        memory_mib=resources.machine.mem_size_mib,
        memory_fd=channels.memory_fd,
        memory_shared=channels.memory_shared,
        acpi=acpi,
        balloon=resources.balloon,
        disks=tuple(plan_disk(drive) for drive in resources.drives),
        nics=tuple(_nic(nic) for nic in resources.nics),
        extra=tuple(resources.vsock_device.qemu_args()) if resources.vsock_device else (),
        entropy=resources.entropy,
        monitor_fd=channels.monitor_fd,
        console_fd=channels.console_fd,
        sandbox=around.sandbox,
        accel=around.accel,
        reports_boot=around.boot_timer,
    )
    _check_slots(_count_devices(guest), ACPI_SLOTS if acpi else cmdline.MMIO_SLOTS)
    return guest


def command_line(resources: Resources, boot: Boot, around: Surroundings, *, acpi: bool) -> str:
    """The guest kernel's whole line, but for what QEMU itself appends."""
    user = boot.config.boot_args if boot.config.boot_args is not None else DEFAULT_BOOT_ARGS
    drive = resources.drives.root
    root = cmdline.Root(bool(drive.is_read_only), drive.partuuid) if drive else None
    if around.accel is Accel.KVM:
        return cmdline.build(user, root, None)
    pit_ticks = resources.machine.vcpu_count == 1 and not acpi
    return cmdline.build(user, root, cmdline.Emulation(pit_ticks=pit_ticks, tsc_khz=around.tsc_khz))


def inherited(guest: Guest) -> set[int]:
    """Every descriptor that the command line of `guest` speaks of, but for those of `extra`."""
    fds = {guest.monitor_fd, guest.console_fd}
    fds |= {fd for fd in (guest.memory_fd, guest.kernel_fd, guest.initrd_fd) if fd is not None}
    return fds | {disk.fd for disk in guest.disks} | {fd for nic in guest.nics for fd in (nic.fd, nic.vhost_fd)}


def _bootable(boot: Boot | None) -> Boot:
    if boot is None:
        raise Fault("Cannot start microvm without kernel configuration.", Area.START)
    if not boot.facts.is_elf:
        raise Fault(f"{_BAD_KERNEL}failed to load ELF kernel image", Area.START)
    if not boot.facts.starts_by_pvh:
        raise Fault(f"{_BAD_KERNEL}no PVH entry point, the only one of this engine (CONFIG_PVH)", Area.START)
    return boot


def _count_devices(guest: Guest) -> int:
    single = (guest.balloon is not None) + (guest.entropy is not None)
    return single + len(guest.disks) + len(guest.nics) + guest.extra.count("-device")


def _check_slots(devices: int, slots: int) -> None:
    if devices > slots:
        raise Fault(f"{devices} virtio devices, and this kernel and machine have room for {slots}.", Area.START)


def _boot_files(boot: Boot, other_user: bool) -> tuple[int, int | None, set[int]]:
    made: set[int] = set()
    kernel_fd, initrd_fd = boot.kernel_fd, None
    try:
        if other_user and not kernel.readable_by_all(boot.kernel_fd):
            kernel_fd = kernel.in_memory("kernel", boot.kernel_fd)
            made.add(kernel_fd)
        if boot.initrd_fd is not None:
            # Always a copy: it may hold keys, and its file's mode need not let anybody else read it.
            initrd_fd = kernel.in_memory("initrd", boot.initrd_fd)
            made.add(initrd_fd)
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return kernel_fd, initrd_fd, made


def plan_disk(drive: OpenDrive) -> Disk:
    config = drive.config
    return Disk(
        fd=drive.fd,
        read_only=bool(config.is_read_only),
        durable=config.cache_type is CacheType.WRITEBACK,
        is_block_device=drive.is_block_device,
        size=drive.size,
        aio="io_uring" if config.io_engine is IoEngine.ASYNC and io_uring.is_allowed() else "threads",
        limiter=config.rate_limiter,
        is_vhost_user=drive.is_vhost_user,
    )


def _nic(nic: Nic) -> GuestNic:
    return GuestNic(
        fd=nic.device.tap_fd,
        vhost_fd=nic.device.vhost_fd,
        mac=nic.config.guest_mac or _random_mac(),
        mtu=nic.config.mtu,
    )


def _random_mac() -> str:
    # Without one QEMU would give every guest the same; the second lowest bit marks it as locally made up.
    return ":".join(f"{byte:02x}" for byte in (0x06, *os.urandom(5)))
