from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.limiter import Bucket, Limiter
from firkin.fcapi.limits import RateLimiter, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_starts_full_and_refills_continuously() -> None:
    clock = Clock()
    bucket = Bucket(TokenBucket(size=100, refill_time=1000), clock)
    assert (bucket.take(60), bucket.take(60)) == (60, 40)
    clock.now += 0.25
    assert bucket.take(60) == 25
    clock.now += 10
    assert bucket.take(1000) == 100


def test_a_burst_is_used_first_and_never_again() -> None:
    clock = Clock()
    bucket = Bucket(TokenBucket(size=10, refill_time=1000, one_time_burst=50), clock)
    assert (bucket.take(40), bucket.take(40), bucket.take(1)) == (40, 20, 0)
    clock.now += 10
    assert bucket.take(100) == 10


def test_without_a_limit_it_never_runs_out() -> None:
    for config in (None, TokenBucket(size=0, refill_time=1), TokenBucket(size=1, refill_time=0)):
        assert Bucket(config).take(10**9) == 10**9


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10**6))))
def test_never_more_than_the_bucket_and_its_refill(size: int, refill_ms: int, steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    bucket = Bucket(TokenBucket(size=size, refill_time=refill_ms), clock)
    taken, passed = 0, 0.0
    for seconds, wanted in steps:
        clock.now += seconds
        passed += seconds
        taken += bucket.take(wanted)
    assert taken <= size + passed * 1000 / refill_ms * size + 1


def limiter(clock: Clock, size: int = 100, burst: int | None = None, ops: int | None = None) -> Limiter:
    return Limiter(
        RateLimiter(
            bandwidth=TokenBucket(size=size, refill_time=1000, one_time_burst=burst),
            ops=TokenBucket(size=ops, refill_time=1000) if ops else None,
        ),
        clock,
    )


def test_more_than_the_bucket_holds_passes_when_it_is_full_and_is_owed() -> None:
    clock = Clock()
    limit = limiter(clock)
    assert limit.consume(250) == 0
    assert limit.consume(10) == pytest.approx(1.6)  # 150 are owed, and 10 wanted
    clock.now += 1.6
    assert limit.consume(10) == 0


def test_both_buckets_must_have_enough_and_then_both_pay() -> None:
    clock = Clock()
    limit = limiter(clock, ops=2)
    assert [limit.consume(10), limit.consume(10)] == [0, 0]
    assert limit.consume(10) == pytest.approx(0.5)
    clock.now += 0.5
    assert limit.consume(100) == 0  # what was refused had cost no bytes
    assert limit.consume(1) > 0


def test_an_update_replaces_what_it_names() -> None:
    clock = Clock()
    limit = limiter(clock, ops=1)
    limit.consume(100)
    limit.update(RateLimiter(bandwidth=TokenBucket(size=50, refill_time=1000)))
    assert limit.consume(1) == pytest.approx(1.0)  # the operations are as before
    limit.update(RateLimiter(ops=TokenBucket(size=0, refill_time=0)))
    assert [limit.consume(50), limit.consume(1)] == [0, pytest.approx(0.02)]


@given(
    st.integers(1, 10**5),
    st.integers(0, 10**5),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 10**5)), max_size=60),
)
def test_never_more_than_bucket_burst_refill_and_one_request(
    size: int, burst: int, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    limit = limiter(clock, size, burst)
    passed, elapsed, largest = 0, 0.0, 0
    for seconds, wanted in steps:
        clock.now += seconds
        elapsed += seconds
        largest = max(largest, wanted)
        if not limit.consume(wanted):
            passed += wanted
    assert passed <= size + burst + elapsed * size + largest + 1
