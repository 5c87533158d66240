from __future__ import annotations

import pytest

from firkin.engine import throttle
from firkin.engine.throttle import Burst
from firkin.fcapi.limits import RateLimiter, TokenBucket


def bucket(size: int, refill_ms: int = 1000, burst: int | None = None) -> TokenBucket:
    return TokenBucket(size=size, refill_time=refill_ms, one_time_burst=burst)


@pytest.mark.parametrize(
    ("given", "average", "at_once"),
    [
        (bucket(1000), 1000, 1000),
        (bucket(5000, 10_000), 500, 5000),
        (bucket(1000, 100), 10_000, 0),  # QEMU's own tenth of a second
        (bucket(1, 10_000), 1, 1),
        (bucket(0), 0, 0),
        (bucket(5, 0), 0, 0),
        (bucket(2**63), 10**15, 10**15),
    ],
)
def test_a_bucket_is_an_average_and_what_goes_at_once(given: TokenBucket, average: int, at_once: int) -> None:
    limits = throttle.drive_limits(RateLimiter(bandwidth=given))
    assert limits == {"bps-total": average, "bps-total-max": at_once, "iops-total": 0, "iops-total-max": 0}


def test_a_burst_comes_before_its_bucket() -> None:
    limiter = RateLimiter(bandwidth=bucket(1000, burst=5000), ops=bucket(10, burst=4))
    assert throttle.burst_of(limiter) == Burst(bandwidth=True, ops=True)
    limits = throttle.drive_limits(limiter, Burst(bandwidth=True, ops=True))
    assert (limits["bps-total"], limits["bps-total-max"]) == (1000, 5000)
    assert (limits["iops-total"], limits["iops-total-max"]) == (4, 4)
    assert throttle.drive_limits(limiter, Burst(ops=True))["bps-total-max"] == 1000


def test_buckets_that_do_not_limit_are_not_there() -> None:
    assert throttle.effective(RateLimiter(bandwidth=bucket(0), ops=bucket(1, 0))) is None
    assert throttle.effective(RateLimiter(bandwidth=bucket(5, burst=0))) == RateLimiter(bandwidth=bucket(5))


def test_a_patch_replaces_only_the_buckets_it_has() -> None:
    old = RateLimiter(bandwidth=bucket(1), ops=bucket(2))
    assert throttle.patched(old, RateLimiter(ops=bucket(3))) == RateLimiter(bandwidth=bucket(1), ops=bucket(3))
    assert throttle.patched(old, RateLimiter(ops=bucket(0))) == RateLimiter(bandwidth=bucket(1))
    assert throttle.patched(None, RateLimiter(ops=bucket(3))) == RateLimiter(ops=bucket(3))
    assert throttle.patched(RateLimiter(ops=bucket(1)), RateLimiter(ops=bucket(0))) is None


def test_random_numbers_have_the_tighter_of_two_limits() -> None:
    assert throttle.rng_quota(RateLimiter(bandwidth=bucket(1000, 100), ops=bucket(1000, 100))) == (1000, 100)
    assert throttle.rng_quota(RateLimiter(bandwidth=bucket(1000, 100), ops=bucket(5, 100))) == (320, 100)
    assert throttle.rng_quota(RateLimiter(bandwidth=bucket(0))) is None
    assert throttle.rng_quota(None) is None
