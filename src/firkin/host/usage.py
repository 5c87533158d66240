"""What a process and all below it cost this host."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from firkin.host.process import ProcessRef, descendants

PROC = Path("/proc")
_PSS = re.compile(r"^Pss: +(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUsage:
    """Of a machine's engine and its children: processor time since their start, and memory, pages that others share
    counted by share. Where the kernel does not tell shares, all that is resident."""

    cpu_s: float
    memory_bytes: int


def usage(ref: ProcessRef) -> HostUsage:
    """As it is now; all zero when the process has ended."""
    pids = [process.pid for process in (ref, *descendants(ref))]
    return HostUsage(cpu_s=sum(map(_cpu_s, pids)), memory_bytes=sum(map(_memory_bytes, pids)))


def _cpu_s(pid: int) -> float:
    text = _read(pid, "stat")
    fields = text[text.rfind(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _memory_bytes(pid: int) -> int:
    if share := _PSS.search(_read(pid, "smaps_rollup")):
        return int(share[1]) << 10
    resident = _read(pid, "statm").split()[1:2]
    return int(resident[0]) * os.sysconf("SC_PAGE_SIZE") if resident else 0


def _read(pid: int, name: str) -> str:
    """Empty when the process has ended, or is another user's and keeps this to itself."""
    try:
        return (PROC / str(pid) / name).read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
