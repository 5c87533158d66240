from __future__ import annotations

from firkin.engine.tsc import is_constant, nominal_khz

GUEST = "processor\t: 0\ncpu MHz\t\t: 2596.122\nflags\t\t: fpu tsc constant_tsc rdtscp\n"
METAL = "processor\t: 0\ncpu MHz\t\t: 1800.000\nflags\t\t: fpu tsc constant_tsc aperfmperf\n"


def test_a_kernel_that_cannot_see_the_momentary_frequency_shows_the_tscs() -> None:
    assert nominal_khz(GUEST, scales=False) == 2596122


def test_a_momentary_frequency_is_not_the_tscs() -> None:
    assert nominal_khz(METAL, scales=False) is None
    assert nominal_khz(GUEST, scales=True) is None


def test_nothing_is_made_of_nothing() -> None:
    assert nominal_khz("", scales=False) is None
    assert not is_constant("flags\t: fpu tsc\n")
    assert is_constant(METAL)
