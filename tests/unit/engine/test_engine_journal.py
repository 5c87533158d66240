from __future__ import annotations

import re
from pathlib import Path

import pytest

from firkin.engine.journal import API, DEBUG, Journal, UnknownLevel, parse_level


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
