"""Firecracker's rate limiter, for what passes through the engine itself: token buckets for bytes and operations."""

from __future__ import annotations

import time
from collections.abc import Callable

from firkin.fcapi.limits import RateLimiter, TokenBucket

Clock = Callable[[], float]

_ROUNDING = 1e-6  # tokens


class Bucket:
    """Starts full, uses a one-time burst first, and refills continuously. Without a limit it never runs out."""

    def __init__(self, config: TokenBucket | None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._size = config.size if config else 0
        self._burst = (config.one_time_burst or 0) if config else 0
        self._per_second = self._size * 1000 / config.refill_time if config and config.refill_time else 0.0
        self._tokens = float(self._size)
        self._filled_at = clock()

    @property
    def limits(self) -> bool:
        return self._per_second > 0

    def take(self, wanted: int) -> int:
        """As many tokens as there are, at most `wanted`."""
        if not self.limits:
            return wanted
        from_burst = min(self._burst, wanted)
        self._burst -= from_burst
        self._refill()
        from_bucket = max(0, min(int(self._tokens), wanted - from_burst))
        self._tokens -= from_bucket
        return from_burst + from_bucket

    def wait_s(self, wanted: int) -> float:
        """Seconds until `wanted` tokens may be spent: who wants more than there can be waits for a full bucket."""
        if not self.limits:
            return 0.0
        self._refill()
        missing = min(wanted - self._burst, self._size) - self._tokens
        return missing / self._per_second if missing > _ROUNDING else 0.0

    def spend(self, wanted: int) -> None:
        """After a `wait_s` of 0. What is more than the bucket holds is owed, and refilled before anything else."""
        if self.limits:
            from_burst = min(self._burst, wanted)
            self._burst -= from_burst
            self._tokens -= wanted - from_burst

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now


class Limiter:
    """A bucket for bytes and one for operations, applied together."""

    def __init__(self, config: RateLimiter | None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._bytes = Bucket(config.bandwidth if config else None, clock)
        self._ops = Bucket(config.ops if config else None, clock)

    def update(self, patch: RateLimiter) -> None:
        """Replace the buckets that are given; a new one starts full."""
        if patch.bandwidth:
            self._bytes = Bucket(patch.bandwidth, self._clock)
        if patch.ops:
            self._ops = Bucket(patch.ops, self._clock)

    def consume(self, size: int) -> float:
        """Let one operation of `size` bytes pass: 0, or the seconds to wait before it is tried again."""
        if not (self._bytes.limits or self._ops.limits):
            return 0.0
        wait_s = max(self._bytes.wait_s(size), self._ops.wait_s(1))
        if not wait_s:
            self._bytes.spend(size)
            self._ops.spend(1)
        return wait_s
