"""What has been configured before the machine starts. Files, taps and sockets are opened as the calls come in."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import msgspec

from firkin.engine import throttle
from firkin.engine.faults import Area, Fault, os_text
from firkin.engine.resources import balloon, machine
from firkin.engine.resources.boot import Boot, open_boot
from firkin.engine.resources.drives import Drives
from firkin.engine.resources.nics import Nics
from firkin.engine.resources.serial import SerialPort
from firkin.fcapi.balloon import Balloon
from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.entropy import Entropy
from firkin.fcapi.hotplug import MemoryHotplug
from firkin.fcapi.machine import DEFAULT_MACHINE, MachineConfiguration, MachineConfigurationPatch
from firkin.fcapi.pmem import Pmem
from firkin.fcapi.vsock import Vsock

if TYPE_CHECKING:
    from firkin.engine.mmds.service import Mmds
    from firkin.engine.vhost import Device
    from firkin.engine.vsock import VsockDevice


class Resources:
    """The machine to be. Each `put` opens what it names and replaces what had the same id."""

    def __init__(self) -> None:
        self.machine = DEFAULT_MACHINE
        self.boot: Boot | None = None
        self.restored_boot: BootSource | None = None  # of a snapshot: shown, but not needed any more
        self.drives = Drives()
        self.nics = Nics()
        self.balloon: Balloon | None = None
        self.entropy: Entropy | None = None
        self.serial = SerialPort()
        self.vsock: Vsock | None = None
        self.vsock_device: VsockDevice | None = None
        self.mmds: Mmds | None = None

    def put_machine(self, config: MachineConfiguration) -> None:
        """Raises: Fault, for impossible numbers."""
        self._set_machine(machine.check(config))

    def patch_machine(self, patch: MachineConfigurationPatch) -> None:
        """Raises: Fault, for impossible numbers or a patch that says nothing."""
        self._set_machine(machine.patched(self.machine, patch))

    def put_boot(self, config: BootSource) -> None:
        """Raises: Fault, when kernel or initrd cannot be opened."""
        boot = open_boot(config)
        if self.boot:
            self.boot.close()
        self.boot = boot

    def put_balloon(self, config: Balloon) -> None:
        """Raises: Fault, for more than the machine has, or what this engine's balloon cannot do."""
        self.balloon = balloon.check(config, self.machine)

    def put_entropy(self, config: Entropy) -> None:
        self.entropy = Entropy(rate_limiter=throttle.effective(config.rate_limiter))

    def put_pmem(self, config: Pmem) -> None:
        """Raises: Fault."""
        from firkin.engine.resources import pmem

        pmem.refuse(config, self.drives.root)

    def put_memory_hotplug(self, config: MemoryHotplug) -> None:
        """Raises: Fault."""
        from firkin.engine.resources import hotplug

        hotplug.refuse(config)

    def put_vsock(self, config: Vsock, *, next_host_port: int | None = None) -> None:
        """Raises: Fault, when the socket cannot be bound."""
        from firkin.engine.vsock import VsockDevice

        if self.vsock_device:
            self.vsock_device.close()  # so that the same path may be bound again
            self._remove_own_socket()
            self.vsock = self.vsock_device = None
        try:
            self.vsock_device = VsockDevice(config.guest_cid, config.uds_path, first_host_port=next_host_port)
        except OSError as error:
            what = "Cannot create backend for vsock device: Error binding to the host-side Unix socket: "
            raise Fault(what + os_text(error), Area.VSOCK) from error
        self.vsock = msgspec.structs.replace(config, vsock_id=msgspec.UNSET)

    def renew_vsock(self) -> None:
        """Make the device again after a start that failed: it serves one QEMU only. Raises: Fault."""
        if self.vsock is not None:
            self.put_vsock(self.vsock)

    def release_files(self) -> None:
        """Close what QEMU has its own copies of by now, and the engine does not serve itself."""
        if self.boot:
            self.boot.close()
        self.drives.close()

    def vhost_devices(self) -> list[Device]:
        """What the engine itself serves."""
        nics = [nic.device for nic in self.nics]
        return [*nics, self.vsock_device] if self.vsock_device else list(nics)

    def close(self) -> None:
        """Give everything back; no guest uses it any more."""
        self.nics.close()
        if self.vsock_device:
            self.vsock_device.close()
        self.serial.close()

    def describe(self) -> VmConfig:
        """The machine as GET /vm/config shows it."""
        return VmConfig(
            balloon=self.balloon,
            boot_source=self.boot.config if self.boot else self.restored_boot or BootSource(kernel_image_path=""),
            drives=tuple(drive.config for drive in self.drives),
            machine_config=self.machine,
            network_interfaces=tuple(nic.config for nic in self.nics),
            vsock=self.vsock,
            mmds_config=self.mmds.described_config() if self.mmds else None,
            entropy=self.entropy,
        )

    def _set_machine(self, config: MachineConfiguration) -> None:
        balloon.check_fits(self.balloon, config)
        self.machine = config

    def _remove_own_socket(self) -> None:
        if self.vsock:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.vsock.uds_path)  # noqa: PTH108 - pathlib costs start-up time
