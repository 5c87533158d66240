"""Memory, as the kernel tells it."""

from __future__ import annotations

from pathlib import Path

from firkin.host.memory import available_mib, total_mib


def test_what_is_available_is_read_from_the_kernel(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16384000 kB\nMemFree:          100 kB\nMemAvailable:    2097152 kB\n")
    assert available_mib(meminfo) == 2048
    meminfo.write_text("MemTotal:       16384000 kB\n")
    assert available_mib(meminfo) == 0


def test_of_this_host_less_is_available_than_there_is() -> None:
    assert 0 < available_mib() < total_mib()
