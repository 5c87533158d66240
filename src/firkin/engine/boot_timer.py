"""The boot timer: a guest that stores a byte at 3 GiB says that it has booted, and the log says how long it took.

QEMU's microvm has nothing at that address, whatever the memory's size: above 3 GiB memory goes on at 4 GiB. With guest
errors logged QEMU says on stderr that somebody wrote there. It does not say which byte; any counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

ARGUMENTS = ("-d", "guest_errors")
_SIGN = b"Invalid write at addr 0xC0000000, size 1,"
# A guest can make QEMU complain without end; after so many bytes nobody listens any more.
_MOST_BYTES = 1 << 20


class BootTimer:
    """Started with the guest, it looks through what QEMU says until the guest has written, or talks too much."""

    def __init__(self, report: Callable[[str], None], *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._report = report
        self._clock = clock
        self._began_ns = clock()
        self._own_cpu_ns = time.process_time_ns()
        self._end = b""
        self._heard = 0
        self.is_over = False

    def hear(self, data: bytes, qemu: int) -> None:
        """Look through more of QEMU's stderr; `qemu` is its process id."""
        if self.is_over:
            return
        text = self._end + data
        self._end = text[-len(_SIGN) :]
        self._heard += len(data)
        if _SIGN in text:
            self.is_over = True
            self._report(line(self._clock() - self._began_ns, self._cpu_ns(qemu)))
        elif self._heard > _MOST_BYTES:
            self.is_over = True
            self._report("The boot timer is off: the guest made QEMU complain too often.")

    def _cpu_ns(self, qemu: int) -> int:
        return time.process_time_ns() - self._own_cpu_ns + time.clock_gettime_ns(_cpu_clock(qemu))


def line(wall_ns: int, cpu_ns: int) -> str:
    """The log line, as upstream words it."""
    wall_us, cpu_us = wall_ns // 1000, cpu_ns // 1000
    return f"Guest-boot-time = {wall_us:>6} us {wall_us // 1000} ms, {cpu_us:>6} CPU us {cpu_us // 1000} CPU ms"


def _cpu_clock(pid: int) -> int:
    """The clock of a process's CPU time: what clock_getcpuclockid(3) answers."""
    return ~pid << 3 | 2
