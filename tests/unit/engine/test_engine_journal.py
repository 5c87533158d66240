from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from firkin.engine.journal import API, BURST, DEBUG, Journal, UnknownLevel, parse_level


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal("my-id")
    journal.open(str(tmp_path / "log"))
    return journal


def lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def test_a_line_has_local_time_instance_and_thread(journal: Journal, tmp_path: Path) -> None:
    journal.info("Running", thread=API)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[my-id:fc_api\] Running", lines(tmp_path)[0])


def test_level_and_origin_are_shown_on_demand(journal: Journal, tmp_path: Path) -> None:
    journal.show_level = journal.show_origin = True
    journal.warn("careful")
    assert re.search(r"\[my-id:main:WARN:\S*/\S+\.py:\d+\] careful$", lines(tmp_path)[0])


def test_less_important_lines_are_left_out(journal: Journal, tmp_path: Path) -> None:
    journal.debug("hidden")
    journal.level = DEBUG
    journal.module = "firkin.nowhere"
    journal.debug("filtered")
    journal.module = __name__
    journal.debug("shown")
    assert [line.split("] ")[1] for line in lines(tmp_path)] == ["shown"]


def test_levels_are_known_by_any_case() -> None:
    assert parse_level("WARNING") == parse_level("Warn")
    with pytest.raises(UnknownLevel):
        parse_level("loud")


def test_a_guest_has_ten_lines_from_each_place(journal: Journal, tmp_path: Path) -> None:
    for _ in range(BURST + 5):
        journal.warn("noise", by_guest=True)
    journal.warn("another place", by_guest=True)
    for _ in range(BURST + 5):
        journal.info("host")
    texts = [line.split("] ")[1] for line in lines(tmp_path)]
    assert texts == ["noise"] * BURST + ["another place"] + ["host"] * (BURST + 5)
    assert journal.rate_limited == 5


def test_a_place_that_may_speak_again_tells_what_was_lost(journal: Journal, tmp_path: Path) -> None:
    def noise() -> None:
        journal.error("noise", by_guest=True)

    for _ in range(BURST + 2):
        noise()
    time.sleep(0.55)  # a tenth of five seconds brings one line back
    noise()
    texts = [line.split("] ")[1] for line in lines(tmp_path)]
    assert texts[BURST:] == ["2 messages were suppressed due to rate limiting", "noise"]


def test_a_line_that_cannot_be_written_is_counted(journal: Journal, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    journal.open(str(tmp_path / "pipe"))
    for _ in range(3000):
        journal.info("x" * 100)
    assert journal.missed > 0
