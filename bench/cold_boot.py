"""Cold boot: engine spawn to agent hello, beside bare QEMU with the same kernel, initramfs, disk, tap and memory.

Both are run in turn, pair by pair, so that a drift of the machine meets both. Bare QEMU's boot ends with the line that
the agent prints when it listens; firkin's ends with the agent's hello, which comes after it.
"""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from firkin import settings
from firkin.agent.initrd import build_initrd
from firkin.engine.tsc import host_khz
from firkin.host import netns
from firkin.manager import networks
from firkin.manager.context import Context
from firkin.manager.firkin import Firkin
from firkin.manager.guest import guest_config
from firkin.net.plan import plan_link
from firkin.spec import MachineSpec

PAIRS = int(os.environ.get("PAIRS", "12"))
MEMORY_MIB = 128
READY = b"agent ready"
TIMEOUT_S = 30.0


def firkin_boot(firkin: Firkin, spec: MachineSpec) -> float:
    """Milliseconds from the engine's spawn to the agent's hello."""
    with firkin.run(spec) as machine:
        timeline = machine.record.timeline
        return timeline["agent ready"] - timeline["network"]


def bare_argv(firkin: Firkin, kernel: str, initrd: Path, mac: str) -> list[str]:
    """The command line that a person who knows QEMU would tune for this guest."""
    record, image = firkin.kernel(kernel), firkin.image("busybox")
    blobs = firkin.context.blobs
    by_cmdline = record.modules_digest is None
    arguments = f"console=ttyS0 reboot=t panic=-1 quiet noreplace-smp mitigations=off tsc_early_khz={host_khz()}"
    return [
        "qemu-system-x86_64",
        *("-M", f"microvm,acpi={'off' if by_cmdline else 'on'},x-option-roms=off,rtc=on,pic=on,pit=on,isa-serial=on"),
        *("-accel", "tcg", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"),
        *("-serial", "stdio", "-kernel", str(blobs.path(record.digest)), "-initrd", str(initrd)),
        *("-append", arguments + (" nolapic_timer" if by_cmdline else "")),
        *("-drive", f"if=none,id=root,format=raw,read-only=on,file={blobs.path(image.digest)}"),
        *("-device", "virtio-blk-device,drive=root"),
        *("-netdev", "tap,id=net,ifname=bench0,script=no,downscript=no"),
        *("-device", f"virtio-net-device,netdev=net,mac={mac}"),
    ]


def bare_boot(argv: list[str]) -> float:
    """Milliseconds from the spawn of QEMU to the agent's line on the console."""
    began = time.perf_counter()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as qemu:
        assert qemu.stdout is not None
        seen = b""
        while READY not in seen and time.perf_counter() - began < TIMEOUT_S:
            if select.select([qemu.stdout], [], [], 1.0)[0]:
                seen += os.read(qemu.stdout.fileno(), 65536)
        took = time.perf_counter() - began
        qemu.kill()
    if READY not in seen:
        sys.exit(f"bare QEMU did not boot: {seen[-300:]!r}")
    return took * 1000


def compare(firkin: Firkin, kernel: str, folder: Path) -> None:
    """Boot pairs and print one row."""
    spec = MachineSpec(image="busybox", memory_mib=MEMORY_MIB, kernel=kernel)
    record, image = firkin.kernel(kernel), firkin.image("busybox")
    link = plan_link(networks.plan(firkin.context, "default"), 0)
    modules = firkin.context.blobs.path(record.modules_digest).read_bytes() if record.modules_digest else None
    initrd = folder / f"{kernel}.cpio"
    initrd.write_bytes(build_initrd(guest_config(spec, "bench", image.config, image.filesystem, link, None), modules))
    argv = bare_argv(firkin, kernel, initrd, link.mac)
    space = f"fkbench-{os.getpid()}"
    netns.create(space)
    try:
        pairs = [(firkin_boot(firkin, spec), netns.run_in(space, lambda: bare_boot(argv))) for _ in range(PAIRS + 1)][
            1:
        ]
    finally:
        netns.delete(space)
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    print(f"cold boot, kernel {kernel:8} firkin {ours:7.1f} ms   bare QEMU {bare:7.1f} ms   ratio {ratio:.2f}")


def main() -> None:
    lender = settings.load()
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as home:
        (Path(home) / "blobs").symlink_to(lender.paths.home / "blobs")
        source = Context(lender)
        with Firkin(
            settings.load(os.environ | {"FIRKIN_HOME": home, "FIRKIN_NETWORK_MODE": "own", "FIRKIN_COLD": "1"})
        ) as firkin:
            for kernel in source.kernels.all():
                firkin.context.kernels.put(kernel)
            for image in source.images.all():
                firkin.context.images.put(image)
            for name in ("build", "debian"):
                compare(firkin, name, Path(home))
        source.close()


if __name__ == "__main__":
    main()
