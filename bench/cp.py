"""Copies of one large file in and out of a machine, beside scp to the same guest, alternately."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.settings import load
from firkin.spec import MachineSpec

SIZE = 256 << 20
RUNS = int(os.environ.get("RUNS", "3"))
KERNEL = os.environ.get("FIRKIN_KERNEL", "build")


def taken(act: Callable[[], object]) -> float:
    """Bytes a second."""
    began = time.perf_counter()
    act()
    return SIZE / (time.perf_counter() - began)


def scp(machine: Machine, *ends: str) -> Callable[[], object]:
    """scp with the options of `firkin ssh`, in the network's namespace."""
    argv = ["scp", *machine.ssh_argv()[1:-1], *ends]
    return lambda: machine.inside(lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL))


def measure(machine: Machine, folder: Path) -> dict[str, list[float]]:
    remote, source, back = f"root@{machine.address}:/root/file", folder / "source", folder / "back"
    ways: dict[str, Callable[[], object]] = {
        "in: firkin": lambda: machine.copy_in(source, "/root/file"),
        "out: firkin": lambda: machine.copy_out("/root/file", back),
        "in: scp": scp(machine, str(source), remote),
        "out: scp": scp(machine, remote, str(back)),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(RUNS):
        for way, act in ways.items():
            rates[way].append(taken(act))
            if way.startswith("out"):
                subprocess.run(["cmp", source, back], check=True)
                back.unlink()
                machine.fs.remove("/root/file")
    return rates


def main() -> None:
    spec = MachineSpec(image="debian", kernel=KERNEL, memory_mib=1024)
    with tempfile.TemporaryDirectory() as place, Firkin(load(os.environ)) as firkin, firkin.run(spec) as machine:
        (Path(place) / "source").write_bytes(os.urandom(SIZE))
        machine.await_port(22, timeout_s=60)
        rates = {way: statistics.median(values) for way, values in measure(machine, Path(place)).items()}
    print(f"copy of {SIZE >> 20} MiB, debian, kernel {KERNEL}, median of {RUNS}")
    for way in ("in", "out"):
        ours, theirs = rates[f"{way}: firkin"], rates[f"{way}: scp"]
        print(f"{way:4} {ours / 1e6:6.0f} MB/s   scp {theirs / 1e6:6.0f} MB/s   {ours / theirs:4.1f} times")


if __name__ == "__main__":
    main()
