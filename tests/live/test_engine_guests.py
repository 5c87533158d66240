"""Kernels of every kind, processors and memory, and how guests end: real guests under TCG."""

from __future__ import annotations

import os
import re
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import kernel_files
import pytest
import shell_guest
from engine_rig import BOOT_ARGS, need_kernel
from net_world import namespace

from firkin.host import netns, tun

pytestmark = pytest.mark.live

MAC = "06:00:00:00:00:01"


def acpi_kernel() -> str:
    """A kernel that finds its devices by ACPI only, configured as those of Firecracker's own tests are."""
    path = os.environ.get("FIRKIN_TEST_ACPI_KERNEL", "")
    if not path:
        pytest.skip("FIRKIN_TEST_ACPI_KERNEL names no kernel")
    return path


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shell_guest.build_initrd(tmp_path_factory.mktemp("initrd"))


def machine(vcpus: int = 1, mem_mib: int = 128, *, smt: bool = False) -> dict[str, dict[str, object]]:
    return {"machine-config": {"vcpu_count": vcpus, "mem_size_mib": mem_mib, "smt": smt}}


@pytest.mark.parametrize("by_acpi", [False, True])
def test_a_reset_by_the_keyboard_controller_ends_at_once(tmp_path: Path, initrd: Path, by_acpi: bool) -> None:
    kernel = acpi_kernel() if by_acpi else ""
    arguments = "console=ttyS0 reboot=k panic=1 quiet"
    with shell_guest.guest(tmp_path, initrd, {}, kernel=kernel, boot_args=arguments) as guest:
        started = time.monotonic()
        guest.vmm.type("reboot -f")
        assert guest.vmm.wait() == 0
        assert time.monotonic() - started < 2


def test_control_alt_delete_reaches_the_guest(tmp_path: Path, initrd: Path) -> None:
    with shell_guest.guest(tmp_path, initrd, {}, kernel=acpi_kernel()) as guest:
        # Without a handler of init's the kernel restarts by itself.
        guest.shell.run("echo 1 > /proc/sys/kernel/ctrl-alt-del")
        guest.api.put("/actions", action_type="SendCtrlAltDel")
        assert guest.vmm.wait() == 0


def test_the_boot_timer_hears_one_write(tmp_path: Path, initrd: Path) -> None:
    with shell_guest.guest(tmp_path, initrd, {}, "--boot-timer", kernel=acpi_kernel()) as guest:
        guest.vmm.type("for i in 1 2 3; do devmem 0xc0000000 8 123; done; echo written")
        said = guest.vmm.expect("Guest-boot-time = ") + guest.vmm.expect(" CPU ms")
        assert re.search(r"Guest-boot-time = [ \d]{6,} us \d+ ms, [ \d]{6,} CPU us \d+ CPU ms", said)
        guest.shell.run("for i in $(seq 100); do devmem 0xc0000000 8 123; done")
        assert b"Guest-boot-time" not in guest.vmm.output  # which begins with this command


def test_a_bzimage_boots(tmp_path: Path, initrd: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(kernel_files.bzimage(Path(need_kernel()).read_bytes()))
    with shell_guest.guest(tmp_path, initrd, {}, kernel=str(image)) as guest:
        assert guest.shell.run("uname -s") == "Linux"


@pytest.mark.parametrize(("vcpus", "smt"), [(2, False), (4, True), (8, False)])
def test_processors_are_found_without_acpi(tmp_path: Path, initrd: Path, vcpus: int, smt: bool) -> None:
    with shell_guest.guest(tmp_path, initrd, machine(vcpus, smt=smt)) as guest:
        assert guest.shell.run("nproc") == str(vcpus)


@pytest.mark.slow
def test_thirty_two_processors(tmp_path: Path, initrd: Path) -> None:
    with shell_guest.guest(tmp_path, initrd, machine(32, 512)) as guest:
        assert guest.shell.run("nproc") == "32"


def test_memory_beyond_the_hole_below_four_gib(tmp_path: Path, initrd: Path) -> None:
    with shell_guest.guest(tmp_path, initrd, machine(mem_mib=4096)) as guest:
        total_kib = int(guest.shell.run("grep MemTotal /proc/meminfo").split()[1])
        assert total_kib > 4096 * 1024 * 0.96


def test_every_device_is_found_by_acpi(tmp_path: Path, initrd: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"by acpi".ljust(4096, b"\0"))
    with namespace() as name:
        netns.run_in(name, partial(tun.create, "tap0"))
        for command in ("address add 192.0.2.1/30 dev tap0", "link set tap0 up"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        resources: dict[str, dict[str, Any]] = {
            **machine(2, 256),
            "drives/data": {"drive_id": "data", "is_root_device": False, "path_on_host": str(disk)},
            "network-interfaces/net0": {"iface_id": "net0", "host_dev_name": "tap0", "guest_mac": MAC},
            "vsock": {"guest_cid": 3, "uds_path": str(tmp_path / "v")},
            "balloon": {"amount_mib": 0, "deflate_on_oom": True},
            "entropy": {},
        }
        inside = ("ip", "netns", "exec", name)
        with shell_guest.guest(tmp_path, initrd, resources, prefix=inside, kernel=acpi_kernel()) as guest:
            shell = guest.shell
            assert shell.run("nproc") == "2"
            assert shell.run("head -c 7 /dev/vda") == "by acpi"
            assert shell.run("cat /sys/class/net/eth0/address") == MAC
            assert "virtio_rng" in shell.run("cat /sys/class/misc/hw_random/rng_available")
            assert shell.run("ls /sys/bus/virtio/drivers/virtio_balloon").split()[0].startswith("bind")
            shell.run("ip link set eth0 up; ip address add 192.0.2.2/30 dev eth0")
            subprocess.run([*inside, "ping", "-q", "-c", "2", "-W", "5", "192.0.2.2"], check=True)
            assert shell.run("test -e /dev/vsock && echo there") == "there"


def test_debians_kernel_boots_by_acpi(tmp_path: Path, initrd: Path) -> None:
    vmlinux = os.environ.get("FIRKIN_TEST_DEBIAN_KERNEL", "")
    if not vmlinux:
        pytest.skip("FIRKIN_TEST_DEBIAN_KERNEL names no kernel")
    with shell_guest.guest(tmp_path, initrd, {}, kernel=vmlinux, boot_args=BOOT_ARGS) as guest:
        assert "cloud-amd64" in guest.shell.run("uname -r")
