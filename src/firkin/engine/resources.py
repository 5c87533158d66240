"""What has been configured before the machine starts. Files, taps and sockets are opened as the calls come in."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from firkin.engine import kernel, tap
from firkin.engine.faults import BAD_MEMORY, BAD_VCPUS, Area, Fault, os_text
from firkin.fcapi.boot import BootSource
from firkin.fcapi.drives import Drive, IoEngine
from firkin.fcapi.machine import DEFAULT_MACHINE, MAX_VCPUS, HugePages, MachineConfiguration, MachineConfigurationPatch
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.vsock import Vsock

_NO_BACKEND = "Unable to create the virtio block device: Invalid block config."


class VsockDevice(Protocol):
    """The seam to firkin.engine.vsock: a vhost-vsock device whose kernel side is the engine."""

    def qemu_args(self) -> list[str]: ...
    def inherited_fds(self) -> tuple[int, ...]: ...
    def child_setup(self) -> None:
        """In the forked child, privileges dropped, just before exec; may wait for `attach`."""

    def attach(self, pid: int) -> None:
        """In the engine, right after fork. Raises: EngineError, when the child ends before its side is set up."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot source and its open files."""

    config: BootSource
    kernel_fd: int
    initrd_fd: int | None
    facts: kernel.KernelFacts

    def close(self) -> None:
        for fd in (self.kernel_fd, self.initrd_fd):
            if fd is not None:
                os.close(fd)


@dataclass(frozen=True, slots=True)
class OpenDrive:
    """A drive and its open backing file."""

    config: Drive
    fd: int
    is_block_device: bool


@dataclass(frozen=True, slots=True)
class OpenNic:
    """An interface and its open tap."""

    config: NetworkInterface
    fd: int


class Resources:
    """The machine to be. Each `put` opens what it names and replaces what had the same id."""

    def __init__(self) -> None:
        self.machine = DEFAULT_MACHINE
        self.boot: Boot | None = None
        self.drives: list[OpenDrive] = []
        self.nics: list[OpenNic] = []
        self.vsock: Vsock | None = None
        self.vsock_device: VsockDevice | None = None

    def put_machine(self, config: MachineConfiguration) -> None:
        """Raises: Fault, for impossible numbers."""
        _check_machine(config)
        self.machine = config

    def patch_machine(self, patch: MachineConfigurationPatch) -> None:
        """Raises: Fault, for impossible numbers or a patch that says nothing."""
        given = {
            name: value for name in patch.__struct_fields__ if (value := getattr(patch, name)) is not msgspec.UNSET
        }
        if not given:
            raise Fault("Empty PATCH request.")
        self.put_machine(msgspec.structs.replace(self.machine, **given))

    def put_boot(self, config: BootSource) -> None:
        """Raises: Fault, when kernel or initrd cannot be opened."""
        kernel_fd = _open_boot_file(config.kernel_image_path, "The kernel file cannot be opened: ")
        initrd_fd = None
        try:
            if config.initrd_path is not None:
                what = "The initrd file cannot be opened due to invalid path or invalid permissions. "
                initrd_fd = _open_boot_file(config.initrd_path, what)
        except Fault:
            os.close(kernel_fd)
            raise
        if self.boot:
            self.boot.close()
        self.boot = Boot(config, kernel_fd, initrd_fd, kernel.inspect(kernel_fd))

    def put_drive(self, config: Drive) -> None:
        """Raises: Fault, for a second root device or a file that cannot be opened."""
        config = _with_drive_defaults(config)
        place = _find(self.drives, "drive_id", config.drive_id)
        roots = [drive for drive in self.drives if drive.config.is_root_device]
        if config.is_root_device and any(root.config.drive_id != config.drive_id for root in roots):
            raise Fault("A root block device already exists!", Area.DRIVE)
        drive = _open_drive(config)
        if place is None:
            self.drives.append(drive)
        else:
            os.close(self.drives[place].fd)
            self.drives[place] = drive
        self.drives.sort(key=lambda each: not each.config.is_root_device)  # stable: the rest stay in PUT order

    def put_nic(self, config: NetworkInterface) -> None:
        """Raises: Fault, for a MAC in use, an MTU out of range, or a tap that cannot be opened."""
        place = _find(self.nics, "iface_id", config.iface_id)
        _check_nic(config, [nic.config for number, nic in enumerate(self.nics) if number != place])
        # The old one first: the same tap cannot be opened twice.
        old = self.nics.pop(place) if place is not None else None
        if old is not None:
            os.close(old.fd)
        nic = OpenNic(config, _open_tap(config.host_dev_name))
        self.nics.insert(len(self.nics) if place is None else place, nic)

    def put_vsock(self, config: Vsock) -> None:
        """Raises: Fault, when the socket cannot be bound."""
        from firkin.engine.vsock import VsockDevice as Device

        if self.vsock_device:
            self.vsock_device.close()  # so that the same path may be bound again
            self._remove_own_socket()
            self.vsock = self.vsock_device = None
        try:
            self.vsock_device = Device(config.guest_cid, config.uds_path)
        except OSError as error:
            what = "Cannot create backend for vsock device: Error binding to the host-side Unix socket: "
            raise Fault(what + os_text(error), Area.VSOCK) from error
        self.vsock = msgspec.structs.replace(config, vsock_id=msgspec.UNSET)

    def renew_vsock(self) -> None:
        """Make the device again after a start that failed: it serves one QEMU only. Raises: Fault."""
        if self.vsock is not None:
            self.put_vsock(self.vsock)

    def release_files(self) -> None:
        """Close what QEMU has its own copies of by now."""
        if self.boot:
            self.boot.close()
        for fd in (*(drive.fd for drive in self.drives), *(nic.fd for nic in self.nics)):
            os.close(fd)

    def _remove_own_socket(self) -> None:
        if self.vsock:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.vsock.uds_path)  # noqa: PTH108 - pathlib costs start-up time


def _check_machine(config: MachineConfiguration) -> None:
    vcpus = config.vcpu_count
    if not 1 <= vcpus <= MAX_VCPUS or (config.smt and vcpus > 1 and vcpus % 2):
        raise Fault(BAD_VCPUS, Area.MACHINE)
    unit = 2 if config.huge_pages is HugePages.HUGETLBFS_2M else 1
    if config.mem_size_mib == 0 or config.mem_size_mib % unit:
        raise Fault(BAD_MEMORY, Area.MACHINE)


def _open_boot_file(path: str, what: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Fault(what + os_text(error), Area.BOOT_SOURCE) from error


def _with_drive_defaults(config: Drive) -> Drive:
    if config.path_on_host is None or config.socket is not None:
        # vhost-user needs a second process that serves the disk; QEMU's microvm could, this engine does not.
        raise Fault(_NO_BACKEND, Area.DRIVE)
    return msgspec.structs.replace(
        config, is_read_only=bool(config.is_read_only), io_engine=config.io_engine or IoEngine.SYNC
    )


def _open_drive(config: Drive) -> OpenDrive:
    path = config.path_on_host or ""
    try:
        fd = os.open(path, (os.O_RDONLY if config.is_read_only else os.O_RDWR) | os.O_CLOEXEC)
    except OSError as error:
        what = "Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: "
        raise Fault(f"{what}{os_text(error)} {path}", Area.DRIVE) from error
    return OpenDrive(config, fd, stat.S_ISBLK(os.fstat(fd).st_mode))


def _check_nic(config: NetworkInterface, others: list[NetworkInterface]) -> None:
    if config.guest_mac is not None:
        if not _is_mac(config.guest_mac):
            raise Fault("The provided MAC address is invalid.")
        if any((other.guest_mac or "").lower() == config.guest_mac.lower() for other in others):
            raise Fault(f"The MAC address is already in use: {config.guest_mac}", Area.NETWORK)
    create = "Could not create the network device: "
    if config.mtu is not None and not 68 <= config.mtu <= 65535:
        raise Fault(f"{create}MTU {config.mtu} is out of range [68, 65535]", Area.NETWORK)
    if config.rx_rate_limiter or config.tx_rate_limiter:
        # Silence would be worse: a limit that nobody enforces.
        raise Fault(f"{create}rate limiters are not supported on network interfaces by this engine.", Area.NETWORK)


def _is_mac(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 6 and all(len(part) == 2 and _is_hex(part) for part in parts)


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)


def _open_tap(name: str) -> int:
    what = "Could not create the network device: Open tap device failed: "
    advice = f" Invalid TUN/TAP Backend provided by {name}. Check our documentation on setting up the network devices."
    try:
        return tap.open_tap(name)
    except tap.BadName as error:
        raise Fault(f"{what}Invalid interface name", Area.NETWORK) from error
    except tap.NoTunDevice as error:
        raise Fault(f"{what}Couldn't open /dev/net/tun: {os_text(error)}", Area.NETWORK) from error
    except OSError as error:
        text = f"{what}Error while creating ifreq structure: {os_text(error)}.{advice}"
        raise Fault(text, Area.NETWORK) from error


def _find(items: Sequence[OpenDrive | OpenNic], id_field: str, wanted: str) -> int | None:
    return next((place for place, item in enumerate(items) if getattr(item.config, id_field) == wanted), None)
