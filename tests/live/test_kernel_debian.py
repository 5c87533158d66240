"""Debian's kernel package becomes a kernel that boots; and whatever stops that on the way leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin.agent.cpio import CpioEntry, write_cpio
from firkin.engine.snapshot import reseed
from firkin.engine.tsc import host_khz
from firkin.errors import HostError
from firkin.host.process import ProcessRef, descendants
from firkin.host.wait import wait_until
from firkin.kernel import debian, ensure, package, shelf
from firkin.paths import Paths
from firkin.store.blobs import Blobs
from firkin.store.db import Database
from firkin.store.kernels import Kernel, Kernels

pytestmark = pytest.mark.live

INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for file in $(/bin/busybox cat /lib/firkin/modules.load); do /bin/busybox insmod $file || echo "refused: $file"; done
for kind in squashfs overlay; do /bin/busybox grep -q $kind /proc/filesystems && echo "has: $kind"; done
[ -e /dev/vsock ] && echo "has: vsock"
[ "$(/bin/busybox blockdev --getsize64 /dev/vda)" = 1048576 ] && echo "has: vda"
/bin/busybox sleep 0.1 && echo "time goes on"
/bin/busybox reboot -f
"""


@pytest.fixture(autouse=True)
def _needs_package_lists() -> None:
    try:
        package.candidate(debian.METAPACKAGE)
    except HostError as error:
        pytest.skip(f"no package lists here: {error}")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "run")


def pull(paths: Paths) -> Kernel:
    db = Database(paths.database)
    try:
        return shelf.refresh("debian", Kernels(db), Blobs(paths), paths, shelf.load_provider("debian"))
    finally:
        db.close()


def firkin(home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The command line in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "firkin.cli", *arguments],
        env=os.environ | {"FIRKIN_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )


def boot(kernel: Path, modules: Path, folder: Path) -> str:
    """Start a microVM with these and BusyBox; answers what it says until it resets."""
    busybox = CpioEntry.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    entries = [CpioEntry.folder("proc"), CpioEntry.folder("dev"), CpioEntry.char_device("dev/console", 5, 1), busybox]
    initrd, disk = folder / "initrd.cpio", folder / "disk"
    initrd.write_bytes(write_cpio([*entries, CpioEntry.file("init", INIT, 0o755)]) + modules.read_bytes())
    disk.write_bytes(bytes(1 << 20))
    argv = (
        "qemu-system-x86_64", "-accel", "tcg", "-m", "128", "-nodefaults", "-no-user-config", "-nographic",
        "-no-reboot",
        "-M", "microvm,acpi=on,x-option-roms=off,isa-serial=on,rtc=on", "-serial", "stdio",
        "-kernel", str(kernel), "-initrd", str(initrd),
        "-append", f"console=ttyS0 quiet reboot=t panic=-1 noreplace-smp tsc_early_khz={host_khz()}",
        "-drive", f"id=disk,file={disk},format=raw,if=none,readonly=on", "-device", "virtio-blk-device,drive=disk",
    )  # fmt: skip
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60).stdout


@pytest.mark.slow
def test_the_kernel_boots_and_finds_what_a_guest_needs(paths: Paths, tmp_path: Path) -> None:
    kernel = pull(paths)
    blobs = Blobs(paths)
    assert kernel.modules_digest is not None
    said = boot(blobs.path(kernel.digest), blobs.path(kernel.modules_digest), tmp_path)
    for expected in ("has: squashfs", "has: overlay", "has: vsock", "has: vda", "time goes on"):
        assert expected in said
    assert "refused" not in said


def test_the_kernel_tells_where_its_random_numbers_come_from(paths: Paths) -> None:
    kernel = Blobs(paths).path(pull(paths).digest)
    with kernel.open("rb") as file:
        address = reseed.find(file.fileno())
    assert address is not None
    assert 0x100_0000 < address < kernel.stat().st_size + 0x200_0000


def test_a_kernel_in_the_store_is_answered_without_work(paths: Paths) -> None:
    kernel = pull(paths)
    db = Database(paths.database)
    assert ensure("debian", Kernels(db), Blobs(paths), paths) == pull(paths) == kernel
    db.close()
    assert list(paths.work.iterdir()) == []


def unpacking(home: Path) -> Callable[[], bool]:
    return lambda: any(home.glob("work/kernel-*/root/*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_pull_leaves_no_kernel_and_no_process(tmp_path: Path, number: signal.Signals) -> None:
    child = firkin(tmp_path, "kernel", "pull", "debian")
    ref = ProcessRef.of(child.pid)
    assert ref is not None
    assert wait_until(unpacking(tmp_path), timeout_s=60, interval_s=0.002)
    family = descendants(ref)
    child.send_signal(number)
    assert child.wait(20) == (130 if number == signal.SIGINT else -number)
    assert wait_until(lambda: not any(process.alive() for process in family), timeout_s=5)
    paths = Paths(tmp_path, tmp_path / "run")
    swept = Blobs(paths).sweep()
    assert len(swept) == (0 if number == signal.SIGINT else 1)
    assert list(paths.work.iterdir()) == []
    assert list(paths.blobs.glob("*")) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    script = (
        'mount -t tmpfs -o size=8m none "$0" && "$1" -m firkin.cli kernel pull debian; echo "exit $?"; ls "$0/work"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, tmp_path, sys.executable],
        env=os.environ | {"FIRKIN_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "disk full" in done.stderr
    assert "hint: free some space" in done.stderr
    assert done.stdout == "exit 125\n"


def test_a_host_without_apt_is_told_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "firkin.cli", "kernel", "pull", "debian"],
        env={"PATH": str(tmp_path), "FIRKIN_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (
        125,
        "error: apt-cache: program not found\nhint: sudo apt-get install apt\n",
    )
