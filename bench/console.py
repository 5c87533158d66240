"""The console's keeper: what it adds to a boot, what a flood costs it, and how large it is. Needs no guest."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firkin.host.process import ProcessRef, with_argument
from firkin.host.wait import wait_until
from firkin.vmm.console import KEEPER, OUTPUT, Console, end, is_kept

RUNS = 30
LINE = b"[    0.571020] what a kernel says at its boot, about so long\r\n"
FLOOD = LINE * (50 * 2**20 // len(LINE))


@contextmanager
def engine() -> Iterator[tuple[Console, ProcessRef]]:
    """A console of a program that only sleeps."""
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as name:
        folder = Path(name)
        console = Console(machine_id=folder.name, run=folder, home=folder, limit=8 * 2**20)
        console.make()
        with console.engine_ends() as (stdin, stdout):
            child = subprocess.Popen(["sleep", "600"], stdin=stdin, stdout=stdout)
        ref = ProcessRef.of(child.pid)
        assert ref is not None
        try:
            yield console, ref
        finally:
            child.kill()
            child.wait()
            end(console.machine_id, folder)


def start_ms() -> tuple[float, float]:
    """Milliseconds to spawn the keeper, and beside it `true`."""
    with engine() as (console, ref):
        began = time.perf_counter()
        console.keep(ref)
        spawned = time.perf_counter()
        child = subprocess.Popen(["true"])
        beside = time.perf_counter()
        child.wait()
    return (spawned - began) * 1000, (beside - spawned) * 1000


def flood() -> tuple[float, float, int]:
    """Seconds and processor seconds that it takes the keeper, and its resident KiB afterwards."""
    with engine() as (console, ref):
        console.keep(ref)
        wait_until(lambda: bool(with_argument("--machine", console.machine_id)), timeout_s=5)
        (keeper,) = with_argument("--machine", console.machine_id)
        began = time.perf_counter()
        with (console.run / OUTPUT).open("wb", buffering=0) as line:
            view = memoryview(FLOOD)
            while view:
                view = view[line.write(view) :]
        took = time.perf_counter() - began
        assert is_kept(console.run)
        ticks = Path(f"/proc/{keeper.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        status = Path(f"/proc/{keeper.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    return took, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), resident


def main() -> None:
    starts = [start_ms() for _ in range(RUNS)]
    keeper, beside = (statistics.median(column) for column in zip(*starts, strict=True))
    took, processor, resident = flood()
    print(f"spawn, median of {RUNS}: {keeper:.2f} ms; `true`: {beside:.2f} ms (x{keeper / beside:.1f})")
    print(f"flood of {len(FLOOD) / 2**20:.0f} MiB: {took:.2f} s, {processor:.2f} s of a processor")
    print(f"resident: {resident} KiB; program: {KEEPER.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
