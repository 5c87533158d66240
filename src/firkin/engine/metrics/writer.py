"""Where metrics go, and when: opened once, a line at a time, never waited for."""

from __future__ import annotations

import os
import time

import msgspec

from firkin.engine.faults import Area, Fault, os_text
from firkin.engine.live.monitor import Timer
from firkin.engine.metrics.collect import Collector
from firkin.engine.metrics.lines import Lines
from firkin.engine.vmm import Vmm
from firkin.fcapi.instance import InstanceState

PERIOD_S = 60.0


class Metrics:
    """An open file or named pipe. Without a `timer`, lines come only when something happens.

    Raises:
        Fault: it cannot be opened.
    """

    def __init__(self, path: str, vmm: Vmm, timer: Timer | None) -> None:
        try:
            # Read and write, not blocking: a named pipe opens at once, also with no reader yet.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o644)
        except OSError as error:
            text = f"Cannot initialize the metrics system due to bad user input: {os_text(error)}"
            raise Fault(text, Area.METRICS) from error
        self._vmm = vmm
        self._timer = timer
        self._collector = Collector(vmm)
        self._lines = Lines()
        self._cut = b""

    def begin(self) -> None:
        """The guest runs: tell so now and each minute from now on."""
        self._try_flush()
        self._wait()

    def flush(self) -> None:
        """Write a line. Raises: Fault, where a full pipe or disk does not take it; the next one then tells of both."""
        line = self._lines.next(self._collector.totals(), time.time_ns() // 1_000_000)
        begun = self._cut
        data = begun + msgspec.json.encode(line) + b"\n"
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._collector.missed_lines += 1
            raise Fault(f"Failed to write metrics: {os_text(error)}", Area.VM) from error
        if written > len(begun):
            self._lines.told()
        else:
            self._collector.missed_lines += 1
            data = begun
        self._cut = data[written:]  # the rest of a line that was begun comes before the next one

    def end(self, *, panicked: bool = False) -> None:
        """Write the last line."""
        self._collector.panics += panicked
        self._try_flush()
        os.close(self._fd)

    def _tick(self) -> None:
        if self._vmm.state is not InstanceState.PAUSED:
            self._try_flush()
        self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.later(PERIOD_S, self._tick)

    def _try_flush(self) -> None:
        try:
            self.flush()
        except Fault as error:
            self._vmm.journal.error(str(error), by_guest=True)
