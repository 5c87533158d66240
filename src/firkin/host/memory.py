"""Memory of this host."""

from __future__ import annotations

import os
import re
from pathlib import Path

_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)


def available_mib(meminfo: Path = Path("/proc/meminfo")) -> int:
    """What programs can still take without swapping, as the kernel estimates it."""
    found = _AVAILABLE.search(meminfo.read_text())
    return int(found[1]) // 1024 if found else 0


def total_mib() -> int:
    """All there is."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
