"""What people see: sizes, times, and nothing that a terminal would obey."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.cli.output import duration, print_table, printable, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (1536 << 20, "1.5 GiB"),
        (1 << 70, "1024.0 EiB"),
    ],
)
def test_sizes_read_as_people_say_them(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00:00"), (62, "0:01:02"), (3723.5, "1:02:03")])
def test_processor_time_reads_as_ps_writes_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_table_does_what_its_columns_say_and_not_what_a_guest_says(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("PID", "COMMAND"), [(1, "\x1b[2J\x1b]0;owned\x07"), (2, "a\nb\u202e\x9b31m"), (30, "größe")])
    assert capsys.readouterr().out.splitlines() == [
        "PID  COMMAND",
        "1    \\x1b[2J\\x1b]0;owned\\x07",
        "2    a\\nb\\u202e\\x9b31m",
        "30   größe",
    ]


@given(st.text(st.characters()))
def test_what_is_printed_is_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not text.isprintable() or shown == text
