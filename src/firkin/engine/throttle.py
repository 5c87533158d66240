"""Firecracker's token buckets as QEMU's throttling takes them: for drives and for random numbers. Pure.

QEMU lets `max` units through at once and refills at the average rate, which is Firecracker's bucket of that size. Its
`max` may not be lower than the average of a second: a bucket that refills faster becomes one of a tenth of a second.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from firkin.fcapi.limits import RateLimiter, TokenBucket

# What one operation of Linux's virtio-rng driver asks for at most.
_RNG_REQUEST = 64
_RNG_MAX_PERIOD_MS = 2**32 - 1
_MAX_RATE = 10**15  # as many as QEMU takes


class Burst(NamedTuple):
    """Which buckets still have their one-time burst."""

    bandwidth: bool = False
    ops: bool = False


NO_BURST = Burst()


def is_limit(bucket: TokenBucket | None) -> bool:
    """Whether it limits at all; a size or a time of zero does not."""
    return bucket is not None and bucket.size > 0 and bucket.refill_time > 0


def effective(limiter: RateLimiter | None) -> RateLimiter | None:
    """The limiter without buckets that do not limit; None if nothing is left."""
    if limiter is None:
        return None
    bandwidth, ops = (_effective(bucket) for bucket in (limiter.bandwidth, limiter.ops))
    return RateLimiter(bandwidth=bandwidth, ops=ops) if bandwidth or ops else None


def patched(limiter: RateLimiter | None, patch: RateLimiter) -> RateLimiter | None:
    """Only the buckets that `patch` has are replaced."""
    old = limiter or RateLimiter()
    return effective(RateLimiter(bandwidth=patch.bandwidth or old.bandwidth, ops=patch.ops or old.ops))


def burst_of(limiter: RateLimiter | None) -> Burst:
    """Which buckets begin with a burst."""
    if limiter is None:
        return NO_BURST
    return Burst(*(is_limit(b) and bool(b and b.one_time_burst) for b in (limiter.bandwidth, limiter.ops)))


def drive_limits(limiter: RateLimiter | None, burst: Burst = NO_BURST) -> dict[str, int]:
    """A throttle group's limits, every one of them, so that they replace whatever was there."""
    bandwidth, ops = (limiter.bandwidth, limiter.ops) if limiter else (None, None)
    return _limits("bps", bandwidth, in_burst=burst.bandwidth) | _limits("iops", ops, in_burst=burst.ops)


def rng_quota(limiter: RateLimiter | None) -> tuple[int, int] | None:
    """Bytes per period in milliseconds; the tighter of both buckets, as QEMU has one. None if nothing limits."""
    quotas = []
    if limiter and is_limit(limiter.bandwidth):
        quotas.append(limiter.bandwidth)
    if limiter and limiter.ops and is_limit(limiter.ops):
        quotas.append(msgspec.structs.replace(limiter.ops, size=limiter.ops.size * _RNG_REQUEST))
    if not quotas:
        return None
    tightest = min((bucket for bucket in quotas if bucket), key=lambda bucket: bucket.size / bucket.refill_time)
    return min(tightest.size, _MAX_RATE), min(tightest.refill_time, _RNG_MAX_PERIOD_MS)


def _effective(bucket: TokenBucket | None) -> TokenBucket | None:
    if bucket is None or not is_limit(bucket):
        return None
    return msgspec.structs.replace(bucket, one_time_burst=bucket.one_time_burst or None)


def _limits(kind: str, bucket: TokenBucket | None, *, in_burst: bool) -> dict[str, int]:
    average, at_once = 0, 0
    if bucket is not None and is_limit(bucket):
        average = max(1, min(bucket.size * 1000 // bucket.refill_time, _MAX_RATE))
        at_once = min(bucket.size, _MAX_RATE)
        if in_burst and bucket.one_time_burst:
            # Only the burst for now; a fresh bucket follows once it is used up.
            at_once = min(bucket.one_time_burst, _MAX_RATE)
            average = min(average, at_once)
    return {f"{kind}-total": average, f"{kind}-total-max": at_once if at_once >= average else 0}
