"""Start-up: processor time of `firkin ls`, `import firkin` and `firkin-vmm --version`, beside the bare interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 15
SCRIPTS = Path(sys.executable).parent

COMMANDS = {
    "python -c pass (baseline)": [sys.executable, "-c", "pass"],
    "import firkin": [sys.executable, "-c", "import firkin"],
    "firkin ls": [str(SCRIPTS / "firkin"), "ls"],
    "firkin-vmm --version": [str(SCRIPTS / "firkin-vmm"), "--version"],
}


def measure(argv: list[str], environ: dict[str, str]) -> tuple[float, float]:
    """Wall and processor milliseconds of one run."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(argv, env=environ, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall * 1000, cpu * 1000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as home:
        environ = os.environ | {"FIRKIN_HOME": home}
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
        for _ in range(RUNS + 1):
            for name, argv in COMMANDS.items():
                samples[name].append(measure(argv, environ))
    print(f"{'start-up, median of ' + str(RUNS):34} {'wall ms':>8} {'CPU ms':>8}")
    for name, runs in samples.items():
        wall, cpu = (statistics.median(column) for column in zip(*runs[1:], strict=True))  # the first one warms up
        print(f"{name:34} {wall:8.1f} {cpu:8.1f}")


if __name__ == "__main__":
    main()
