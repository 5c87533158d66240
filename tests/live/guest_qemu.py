"""Boots firkin-init in QEMU with its console on a pipe: what the live tests of the guest share."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from firkin.agent.initrd import GuestConfig, build_initrd

MACHINE = "microvm,acpi=off,x-option-roms=off,rtc=on,pic=on,pit=on,isa-serial=on"
BOOT_ARGS = "reboot=t panic=-1 console=ttyS0 quiet nolapic_timer noreplace-smp"
MAC = "06:00:ac:10:00:02"


def tsc_khz() -> int:
    """The host's clock rate: told to the guest, it need not measure it, which can hang under emulation."""
    match = re.search(r"cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text())
    return int(float(match[1]) * 1000) if match else 2_000_000


def make_tree(root: Path) -> None:
    """A root filesystem of busybox alone, with one link for each of its applets."""
    for folder in ("bin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "home/anna"):
        (root / folder).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for applet in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nanna:x:1000:\nwheel:x:10:anna\n")
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")


def make_squashfs(folder: Path) -> Path:
    """`make_tree` as a squashfs image."""
    tree, image = folder / "tree", folder / "root.squashfs"
    make_tree(tree)
    subprocess.run(["mksquashfs", tree, image, "-quiet", "-no-progress", "-all-root", "-comp", "lz4"], check=True)
    return image


class Guest:
    """One QEMU with its console on our pipes; leave the scope and it is gone."""

    def __init__(
        self, kernel: Path, initrd: bytes, folder: Path, disks: Sequence[Path] = (), *, writable: Sequence[Path] = ()
    ) -> None:
        file = folder / f"initrd-{time.monotonic_ns()}.cpio"
        file.write_bytes(initrd)
        drives = [(disk, "on") for disk in disks] + [(disk, "off") for disk in writable]
        argv = [
            "qemu-system-x86_64", "-M", MACHINE, "-accel", "tcg", "-m", "128", "-nodefaults", "-no-user-config",
            "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel), "-initrd", str(file),
            "-append", f"{BOOT_ARGS} tsc_early_khz={tsc_khz()}",
            "-netdev", "hubport,id=n0,hubid=0", "-device", f"virtio-net-device,netdev=n0,mac={MAC}",
        ]  # fmt: skip
        for index, (disk, readonly) in enumerate(drives):  # the first one becomes vda
            argv += ["-drive", f"id=d{index},file={disk},format=raw,if=none,readonly={readonly}"]
            argv += ["-device", f"virtio-blk-device,drive=d{index}"]
        self.started = time.monotonic()
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.console = b""

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def read_until(self, text: bytes, timeout_s: float = 60.0) -> bytes:
        """The console's output up to `text`, which must come; what was read before counts as read."""
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        deadline = time.monotonic() + timeout_s
        while text not in self.console:
            assert time.monotonic() < deadline, f"no {text!r} in {self.console!r}"
            self.console += self.process.stdout.read() or b""
            assert self.process.poll() is None or text in self.console, f"ended: {self.console!r}"
            time.sleep(0.002)
        before, found, self.console = self.console.partition(text)
        return before + found

    def type(self, text: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def wait_end(self, timeout_s: float = 60.0) -> bytes:
        """Everything until the machine ended by itself."""
        output, _ = self.process.communicate(timeout=timeout_s)
        self.console += output
        assert self.process.returncode == 0
        return self.console.replace(b"\r\n", b"\n")


def boot_to_end(
    kernel: Path, folder: Path, config: GuestConfig, disks: Sequence[Path], **kwargs: Sequence[Path]
) -> str:
    """Boot, wait until the machine ends, and give what the console said."""
    with Guest(kernel, build_initrd(config), folder, disks, **kwargs) as guest:
        return guest.wait_end().decode(errors="replace")
