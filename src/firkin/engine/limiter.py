"""Firecracker's token bucket, for what passes through the engine itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from firkin.fcapi.limits import TokenBucket


class Bucket:
    """Starts full, uses a one-time burst first, and refills continuously. Without a limit it never runs out."""

    def __init__(self, config: TokenBucket | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._size = config.size if config else 0
        self._burst = (config.one_time_burst or 0) if config else 0
        self._per_second = self._size * 1000 / config.refill_time if config and config.refill_time else 0.0
        self._tokens = float(self._size)
        self._filled_at = clock()

    def take(self, wanted: int) -> int:
        """As many tokens as there are, at most `wanted`."""
        if not self._per_second:
            return wanted
        from_burst = min(self._burst, wanted)
        self._burst -= from_burst
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        from_bucket = min(int(self._tokens), wanted - from_burst)
        self._tokens -= from_bucket
        return from_burst + from_bucket
