"""The boot timer finds the guest's store among what QEMU says, however it is cut, and tires of noise."""

from __future__ import annotations

import os
import re

import pytest

from firkin.engine.boot_timer import BootTimer, line

STORE = b"Invalid write at addr 0xC0000000, size 1, region '(null)', reason: rejected\n"


class Heard(BootTimer):
    """A timer whose reports are kept, started at one second and stopped at three."""

    def __init__(self) -> None:
        self.said: list[str] = []
        times = iter((1_000_000_000, 3_000_000_000))
        super().__init__(self.said.append, clock=lambda: next(times))


def test_the_line_is_upstreams() -> None:
    assert line(123_456_789, 45_678_000) == "Guest-boot-time = 123456 us 123 ms,  45678 CPU us 45 CPU ms"
    assert line(1_000, 0) == "Guest-boot-time =      1 us 0 ms,      0 CPU us 0 CPU ms"


@pytest.mark.parametrize("cut", [0, 1, 20, 41, len(STORE)])
def test_a_store_is_reported_once(cut: int) -> None:
    timer = Heard()
    for part in (b"noise\n" + STORE[:cut], STORE[cut:], STORE):
        if part:
            timer.hear(part, os.getpid())
    assert len(timer.said) == 1
    assert re.fullmatch(r"Guest-boot-time = 2000000 us 2000 ms, +\d+ CPU us \d+ CPU ms", timer.said[0])
    assert timer.is_over


def test_other_complaints_are_not_it() -> None:
    timer = Heard()
    timer.hear(STORE.replace(b"size 1", b"size 4"), os.getpid())
    timer.hear(STORE.replace(b"0xC0000000", b"0xC00000000"), os.getpid())
    assert timer.said == []
    assert not timer.is_over


def test_a_guest_that_makes_too_much_noise_is_not_listened_to() -> None:
    timer = Heard()
    for _ in range(300):
        timer.hear(b"x" * 4096, os.getpid())
    assert len(timer.said) == 1
    assert "complain too often" in timer.said[0]
    assert timer.is_over
