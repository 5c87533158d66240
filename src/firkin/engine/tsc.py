"""The rate of the host's time stamp counter. QEMU's TCG gives the guest the host's own counter."""

from __future__ import annotations

import functools
import mmap
import os
import time
from collections.abc import Callable

_CPUINFO = "/proc/cpuinfo"
_CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"
# mov rax, counter: rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_TSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_MEASURE_S = 0.02


@functools.cache
def host_khz() -> int | None:
    """Kilohertz of the host's TSC, or None where it is not constant, not there, or cannot be found out.

    Found out once: measuring takes longer than all else that an engine does for a fork.
    """
    if os.uname().machine != "x86_64":
        return None
    try:
        with open(_CPUINFO, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
            text = file.read(8192).decode(errors="replace")
    except OSError:
        return None
    if not is_constant(text):
        return None
    return nominal_khz(text, scales=os.path.exists(_CPUFREQ)) or _measured_khz()  # noqa: PTH110 - as above


def is_constant(cpuinfo: str) -> bool:
    """Whether the first processor's counter keeps its rate, by the text of /proc/cpuinfo."""
    return "constant_tsc" in _field(cpuinfo, "flags").split()


def nominal_khz(cpuinfo: str, *, scales: bool) -> int | None:
    """The rate by the text of /proc/cpuinfo: exact where the kernel has nothing better to show than the TSC's own.

    With APERF/MPERF, or with frequency scaling, `cpu MHz` is the momentary frequency and says nothing of the TSC.
    """
    if scales or "aperfmperf" in _field(cpuinfo, "flags").split():
        return None
    try:
        return round(float(_field(cpuinfo, "cpu MHz")) * 1000) or None
    except ValueError:
        return None


def _field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _measured_khz() -> int | None:
    """Read the counter twice, 20 ms apart; good to some 50 parts in a million."""
    import ctypes

    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None  # executable memory is forbidden here
    code.write(_READ_TSC)
    anchor = ctypes.c_char.from_buffer(code)
    read_tsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
    first_ns, first = _sample(read_tsc)
    time.sleep(_MEASURE_S)
    second_ns, second = _sample(read_tsc)
    del read_tsc, anchor
    code.close()
    return round((second - first) * 1_000_000 / (second_ns - first_ns))


def _sample(read_tsc: Callable[[], int]) -> tuple[int, int]:
    """Clock and counter at one instant: the tightest of a few brackets."""
    best: tuple[int, int, int] | None = None
    for _ in range(16):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        counter = read_tsc()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, counter)
    assert best is not None
    return best[1], best[2]
