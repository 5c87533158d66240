"""Frames through the engine beside bare QEMU's own tap device: a ping's round trip, and TCP both ways.

Both boot the same kernel and initramfs with the same arguments, in turn, each in a network namespace of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import shell_guest
import test_engine_net as net
from engine_rig import Engine, need_kernel
from net_world import namespace

from firkin.host import netns, tun
from firkin.manager.firkin import Firkin
from firkin.settings import load

PAIRS = int(os.environ.get("PAIRS", "5"))
SIZE = 64 * net.MIB

MEASURES: dict[str, Callable[[net.Link], float]] = {
    "round trip, ms": lambda link: link.ping(200),
    "from the guest, MiB/s": lambda link: link.from_guest(SIZE) / net.MIB,
    "to the guest, MiB/s": lambda link: link.to_guest(SIZE) / net.MIB,
}


@contextmanager
def bare(initrd: Path, command_line: str) -> Iterator[net.Link]:
    """The guest on QEMU alone, which opens the tap itself."""
    with namespace() as name:
        netns.run_in(name, partial(tun.create, "tap0"))
        for command in (f"address add {net.HOST}/30 dev tap0", "link set tap0 up"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        argv = [
            *("ip", "netns", "exec", name, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256"),
            *("-machine", "microvm,acpi=off,x-option-roms=off,pit=on,pic=on,rtc=on,isa-serial=on"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-global", "virtio-mmio.force-legacy=false", "-device", "i8042"),
            *("-kernel", need_kernel(), "-initrd", str(initrd), "-append", command_line),
            *("-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off"),
            *("-device", f"virtio-net-device,netdev=net0,mac={net.MAC}"),
        ]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            vmm = Engine(process, process.stdin.fileno(), process.stdout.fileno())
            try:
                vmm.expect("READY")
                yield net.Link(name, shell_guest.Shell(vmm))
            finally:
                process.kill()


def measure(link: net.Link) -> dict[str, float]:
    return {name: take(link) for name, take in MEASURES.items()}


def pair(folder: Path, initrd: Path) -> tuple[dict[str, float], dict[str, float]]:
    folder.mkdir()
    with net.linked(folder, initrd) as link:
        words = link.shell.run("cat /proc/cmdline").split()
        ours = measure(link)
    command_line = " ".join(word for word in words if not word.startswith("virtio_mmio.device="))
    with bare(initrd, command_line) as link:
        link.shell.run(f"ip link set eth0 up; ip address add {net.GUEST}/30 dev eth0")
        return ours, measure(link)


def main() -> None:
    with Firkin(load(os.environ)) as firkin:
        os.environ["FIRKIN_TEST_KERNEL"] = str(firkin.context.blobs.path(firkin.kernel("build").digest))
    with tempfile.TemporaryDirectory() as place:
        initrd = shell_guest.build_initrd(Path(place))
        pairs = [pair(Path(place, str(number)), initrd) for number in range(PAIRS)]
    for name in MEASURES:
        ours, bares = ([side[name] for side in sides] for sides in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in zip(ours, bares, strict=True))
        print(f"{name:24} {statistics.median(ours):8.2f}   bare QEMU {statistics.median(bares):8.2f}   {ratio:.2f}")


if __name__ == "__main__":
    main()
