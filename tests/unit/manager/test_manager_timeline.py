"""A start's phases add up to the whole, whatever the guest tells of itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.cli.timeline import print_timeline
from firkin.manager.timeline import GUEST, spans, then_command

BOOT = {
    "folders": 1.0,
    "network": 11.0,
    "engine spawned": 16.0,
    "instance started": 200.0,
    "guest: init": 300.0,
    "guest: root mounted": 320.0,
    "guest: agent ready": 340.0,
    "agent ready": 600.0,
}


def test_what_the_guest_tells_divides_the_time_in_which_it_was_waited_for() -> None:
    found = [(span.stage, span.phase, span.took_ms) for span in spans(then_command(BOOT, 50.0))]
    assert found == [
        ("host", "folders", 1.0),
        ("host", "network", 10.0),
        ("engine", "engine spawned", 5.0),
        ("engine", "instance started", 184.0),
        ("kernel", "init started", 360.0),
        ("init", "root mounted", 20.0),
        ("agent", "agent ready", 20.0),
        ("command", "first command", 50.0),
    ]


def test_a_phase_nobody_knows_is_the_hosts() -> None:
    assert [(span.stage, span.phase) for span in spans({"something new": 3.0})] == [("host", "something new")]


def test_a_command_comes_after_the_start_even_of_a_machine_without_one() -> None:
    assert then_command({}, 2.0) == {"command": 2.0}


marks = st.lists(st.floats(0, 1e6), min_size=1, max_size=6).map(sorted)


@given(host=marks, guest=st.lists(st.floats(0, 1e9), max_size=5))
def test_the_phases_follow_on_each_other_and_end_with_the_start(host: list[float], guest: list[float]) -> None:
    timeline = {f"host {number}": at for number, at in enumerate(host[:-1])}
    timeline |= {f"{GUEST}{number}": at for number, at in enumerate(sorted(guest))} | {"agent ready": host[-1]}
    found = spans(timeline)
    assert found[0].began_ms == 0.0
    assert found[-1].ended_ms == pytest.approx(host[-1], abs=0.1)
    for earlier, later in pairwise(found):
        assert earlier.ended_ms == later.began_ms
        assert later.took_ms >= 0


def test_the_table_has_a_row_a_phase_with_share_and_bar(capsys: pytest.CaptureFixture[str]) -> None:
    print_timeline({"network": 25.0, "engine spawned": 100.0})
    assert capsys.readouterr().out.splitlines() == [
        "STAGE   PHASE           TOOK (ms)  SHARE  0                                 100 ms",
        "host    network              25.0  25.0%  " + "#" * 10,
        "engine  engine spawned       75.0  75.0%  " + " " * 10 + "#" * 30,
        "        total               100.0",
    ]


def test_a_machine_that_never_started_has_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_timeline({})
    assert "total" in capsys.readouterr().out
    print_timeline({}, as_json=True)
    assert '"phases": []' in capsys.readouterr().out


@given(st.dictionaries(st.text(max_size=5), st.floats(0, 1e9), max_size=5))
def test_any_timeline_can_be_printed(timeline: dict[str, float]) -> None:
    print_timeline(timeline)
