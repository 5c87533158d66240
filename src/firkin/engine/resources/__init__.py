"""What has been configured before the machine starts. Files, taps and sockets are opened as the calls come in."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

import msgspec

from firkin.engine.args import DEFAULT_ID, DEFAULT_PAYLOAD_LIMIT
from firkin.engine.faults import Area, Fault, os_text
from firkin.engine.resources import machine
from firkin.engine.resources.boot import Boot, open_boot
from firkin.engine.resources.drives import Drives
from firkin.engine.resources.nics import Nics
from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.machine import DEFAULT_MACHINE, MachineConfiguration, MachineConfigurationPatch
from firkin.fcapi.mmds import MmdsConfig
from firkin.fcapi.vsock import Vsock

if TYPE_CHECKING:
    from firkin.engine.mmds.service import Mmds


class VsockDevice(Protocol):
    """The seam to firkin.engine.vsock: a vhost-vsock device whose kernel side is the engine."""

    def qemu_args(self) -> list[str]: ...
    def inherited_fds(self) -> tuple[int, ...]: ...
    def child_setup(self) -> None:
        """In the forked child, privileges dropped, just before exec; may wait for `attach`."""

    @property
    def next_host_port(self) -> int:
        """For a snapshot to keep."""

    def attach(self, pid: int) -> None:
        """In the engine, right after fork. Raises: EngineError, when the child ends before its side is set up."""

    def close(self) -> None: ...


class Resources:
    """The machine to be. Each `put` opens what it names and replaces what had the same id."""

    def __init__(self, instance_id: str = DEFAULT_ID) -> None:
        self.mmds_size_limit = DEFAULT_PAYLOAD_LIMIT
        self._instance_id = instance_id
        self.machine = DEFAULT_MACHINE
        self.boot: Boot | None = None
        self.restored_boot: BootSource | None = None  # of a snapshot: shown, but not needed any more
        self.drives = Drives()
        self.nics = Nics()
        self.vsock: Vsock | None = None
        self.vsock_device: VsockDevice | None = None
        self.mmds: Mmds | None = None

    def put_machine(self, config: MachineConfiguration) -> None:
        """Raises: Fault, for impossible numbers."""
        self.machine = machine.check(config)

    def patch_machine(self, patch: MachineConfigurationPatch) -> None:
        """Raises: Fault, for impossible numbers or a patch that says nothing."""
        self.machine = machine.patched(self.machine, patch)

    def put_boot(self, config: BootSource) -> None:
        """Raises: Fault, when kernel or initrd cannot be opened."""
        boot = open_boot(config)
        if self.boot:
            self.boot.close()
        self.boot = boot

    def put_vsock(self, config: Vsock, *, next_host_port: int | None = None) -> None:
        """Raises: Fault, when the socket cannot be bound."""
        from firkin.engine.vsock import VsockDevice as Device

        if self.vsock_device:
            self.vsock_device.close()  # so that the same path may be bound again
            self._remove_own_socket()
            self.vsock = self.vsock_device = None
        try:
            self.vsock_device = Device(config.guest_cid, config.uds_path, first_host_port=next_host_port)
        except OSError as error:
            what = "Cannot create backend for vsock device: Error binding to the host-side Unix socket: "
            raise Fault(what + os_text(error), Area.VSOCK) from error
        self.vsock = msgspec.structs.replace(config, vsock_id=msgspec.UNSET)

    def renew_vsock(self) -> None:
        """Make the device again after a start that failed: it serves one QEMU only. Raises: Fault."""
        if self.vsock is not None:
            self.put_vsock(self.vsock)

    def metadata(self) -> Mmds:
        """The metadata service, made when it is first asked for."""
        if self.mmds is None:
            from firkin.engine.mmds.service import Mmds

            self.mmds = Mmds(self._instance_id, self.mmds_size_limit)
        return self.mmds

    def put_mmds_config(self, config: MmdsConfig) -> None:
        """Raises: Fault, for an address or an interface that cannot be."""
        from firkin.engine.mmds.config import checked

        config = checked(config, [nic.config.iface_id for nic in self.nics])
        self.metadata().config = config

    def release_files(self) -> None:
        """Close what QEMU has its own copies of by now."""
        if self.boot:
            self.boot.close()
        self.drives.close()
        self.nics.close()

    def describe(self) -> VmConfig:
        """The machine as GET /vm/config shows it."""
        return VmConfig(
            boot_source=self.boot.config if self.boot else self.restored_boot or BootSource(kernel_image_path=""),
            drives=tuple(drive.config for drive in self.drives),
            machine_config=self.machine,
            network_interfaces=tuple(nic.config for nic in self.nics),
            vsock=self.vsock,
            mmds_config=self.mmds.described_config() if self.mmds else None,
        )

    def _remove_own_socket(self) -> None:
        if self.vsock:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.vsock.uds_path)  # noqa: PTH108 - pathlib costs start-up time
