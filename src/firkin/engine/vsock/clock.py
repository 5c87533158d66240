"""The guest's running time."""

from __future__ import annotations

import time


class RunClock:
    """Seconds of the guest's running time: a pause is no reason to lose patience."""

    def __init__(self) -> None:
        self._stopped_at_s: float | None = time.monotonic()
        self._paused_s = 0.0

    def now_s(self) -> float:
        end_s = time.monotonic() if self._stopped_at_s is None else self._stopped_at_s
        return end_s - self._paused_s

    def start(self) -> None:
        if self._stopped_at_s is not None:
            self._paused_s += time.monotonic() - self._stopped_at_s
            self._stopped_at_s = None

    def stop(self) -> None:
        self._stopped_at_s = time.monotonic()
