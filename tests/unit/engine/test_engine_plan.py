from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_files import bzimage, elf

from firkin.engine.faults import Fault
from firkin.engine.plan import Channels, Surroundings, inherited, plan_boot, plan_restored
from firkin.engine.qemu_argv import Guest
from firkin.engine.resources import Resources
from firkin.fcapi.boot import BootSource
from firkin.fcapi.drives import Drive

AROUND = Surroundings(name="m", tsc_khz=5, sandbox=True, other_user=True)
CHANNELS = Channels(monitor_fd=100, console_fd=101, memory_fd=102, memory_shared=True)
BY_CMDLINE = elf(by_cmdline=True)


@pytest.fixture
def resources() -> Iterator[Resources]:
    resources = Resources()
    yield resources
    resources.release_files()


def boot(resources: Resources, folder: Path, kernel: bytes = BY_CMDLINE, args: str | None = "quiet") -> None:
    path = folder / "kernel"
    path.write_bytes(kernel)
    path.chmod(0o644)
    resources.put_boot(BootSource(kernel_image_path=str(path), boot_args=args))


def plan(resources: Resources) -> Guest:
    guest, made = plan_boot(resources, AROUND, CHANNELS)
    for fd in made:
        os.close(fd)
    return guest


def test_without_a_kernel_there_is_nothing_to_start(resources: Resources) -> None:
    with pytest.raises(Fault, match=r"^Start microvm error: Cannot start microvm without kernel configuration\.$"):
        plan(resources)


def test_a_kernel_must_be_elf(resources: Resources, tmp_path: Path) -> None:
    boot(resources, tmp_path, b"MZ")
    with pytest.raises(Fault, match="Kernel Loader: failed to load ELF kernel image"):
        plan(resources)


def test_a_kernel_must_start_by_pvh(resources: Resources, tmp_path: Path) -> None:
    boot(resources, tmp_path, elf(notes=b""))
    with pytest.raises(Fault, match="Kernel Loader: no PVH entry point"):
        plan(resources)


def test_a_bzimage_counts_as_the_kernel_within(resources: Resources, tmp_path: Path) -> None:
    boot(resources, tmp_path, bzimage(BY_CMDLINE))
    assert plan(resources).acpi is False
    boot(resources, tmp_path, bzimage(b"no kernel"))
    with pytest.raises(Fault, match="failed to load ELF kernel image"):
        plan(resources)


def test_a_folder_is_refused_at_the_start(resources: Resources, tmp_path: Path) -> None:
    resources.put_boot(BootSource(kernel_image_path=str(tmp_path)))
    with pytest.raises(Fault, match="failed to load ELF kernel image"):
        plan(resources)


def test_a_kernel_without_the_parameter_needs_acpi(resources: Resources, tmp_path: Path) -> None:
    boot(resources, tmp_path)
    assert plan(resources).acpi is False
    boot(resources, tmp_path, elf())
    assert plan(resources).acpi is True


def test_more_devices_than_slots_are_refused(resources: Resources, tmp_path: Path) -> None:
    boot(resources, tmp_path)
    for number in range(9):
        resources.drives.put(Drive(drive_id=str(number), is_root_device=False, path_on_host="/dev/null"))
    with pytest.raises(Fault, match="9 virtio devices, and this kernel and machine have room for 8"):
        plan(resources)


def test_arguments_for_init_make_us_name_the_devices(resources: Resources, tmp_path: Path) -> None:
    boot(resources, tmp_path, args="quiet -- single")
    resources.drives.put(Drive(drive_id="a", is_root_device=True, is_read_only=True, path_on_host="/dev/null"))
    guest = plan(resources)
    assert not guest.names_mmio_devices
    assert guest.command_line.endswith("virtio_mmio.device=512@0xfeb00e00:12 -- single")
    assert "root=/dev/vda ro" in guest.command_line


def test_a_private_kernel_and_every_initrd_are_copied(resources: Resources, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"secret")
    boot(resources, tmp_path)
    (tmp_path / "kernel").chmod(0o600)
    assert resources.boot is not None
    resources.put_boot(BootSource(kernel_image_path=resources.boot.config.kernel_image_path, initrd_path=str(initrd)))
    guest, made = plan_boot(resources, AROUND, CHANNELS)
    assert made == {guest.kernel_fd, guest.initrd_fd}
    assert guest.initrd_fd is not None
    assert os.pread(guest.initrd_fd, 10, 0) == b"secret"
    assert inherited(guest) == {guest.kernel_fd, guest.initrd_fd, 100, 101, 102}
    for fd in made:
        os.close(fd)


def test_a_restored_guest_needs_no_kernel(resources: Resources) -> None:
    resources.drives.put(Drive(drive_id="a", is_root_device=True, path_on_host="/dev/null"))
    guest = plan_restored(resources, AROUND, CHANNELS, acpi=True)
    assert (guest.kernel_fd, guest.acpi, len(guest.disks)) == (None, True, 1)
    assert inherited(guest) == {guest.disks[0].fd, 100, 101, 102}
