"""The tour with everything at hand: seconds from start to its last line."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 3


def main() -> None:
    firkin = str(Path(sys.executable).parent / "firkin")
    totals = []
    for _ in range(RUNS + 1):
        story = json.loads(subprocess.run([firkin, "tour", "--json"], capture_output=True, check=True).stdout)
        totals.append(story["seconds"])
    rest = totals[1:]  # the first one may have fetched and built
    print(f"tour, median of {RUNS}: {statistics.median(rest):.1f} s ({min(rest):.1f} to {max(rest):.1f})")


if __name__ == "__main__":
    main()
