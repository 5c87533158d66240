from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.limiter import Bucket
from firkin.fcapi.limits import TokenBucket


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
