"""How long the slow calls took, for log and metrics: as the API's client sees it, and in the machine alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from firkin.engine.journal import API, Journal


class Slow(Enum):
    """A call that is measured: its field in the metrics and its name in the log."""

    FULL_SNAPSHOT = ("full_create_snapshot", "create full snapshot")
    DIFF_SNAPSHOT = ("diff_create_snapshot", "create diff snapshot")
    LOAD_SNAPSHOT = ("load_snapshot", "load snapshot")
    PAUSE = ("pause_vm", "pause vm")
    RESUME = ("resume_vm", "resume vm")


class Latencies:
    """The latest of each, in microseconds; 0 before the first."""

    def __init__(self, journal: Journal) -> None:
        self.us = {prefix + call.value[0]: 0 for prefix in ("", "vmm_") for call in Slow}
        self._journal = journal

    @contextmanager
    def measure(self, call: Slow) -> Iterator[None]:
        """The machine's part counts only when it succeeded, the API's always; as upstream."""
        field, name = call.value
        began_ns = time.monotonic_ns()
        try:
            yield
            self.us["vmm_" + field] = took = (time.monotonic_ns() - began_ns) // 1000
            self._journal.info(f"'{name}' VMM action took {took} us.")
        finally:
            self.us[field] = took = (time.monotonic_ns() - began_ns) // 1000
            self._journal.info(f"'{name}' API request took {took} us.", thread=API)
