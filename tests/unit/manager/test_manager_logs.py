"""A log's lines with their times, and which of them are asked for."""

from __future__ import annotations

import struct
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from firkin.cli.output import utc
from firkin.errors import UsageError
from firkin.manager.logs import LINE_BYTES, LogLine, moment, read_logs


def write(path: Path, pieces: list[tuple[float, bytes]]) -> None:
    """As the keeper does: a time for each piece."""
    entries, data = b"", b""
    for when, piece in pieces:
        entries += struct.pack("=QQ", int(when * 1e9), len(data))
        data += piece
    path.with_name(f"{path.name}.times").write_bytes(entries)
    path.write_bytes(data)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write(tmp_path / "console.log.1", [(100, b"one\r\n"), (101, b"two\r\nthr")])
    write(tmp_path / "console.log", [(102, b"ee\r\nfour\r\n"), (103, b"five")])
    return tmp_path / "console.log"


ALL = [
    LogLine(100, b"one\r\n"),
    LogLine(101, b"two\r\n"),
    LogLine(101, b"three\r\n"),
    LogLine(102, b"four\r\n"),
    LogLine(103, b"five"),
]


def test_a_line_has_the_time_of_its_first_byte_also_across_files(log: Path) -> None:
    assert list(read_logs(log)) == ALL


def test_a_span_and_a_tail_choose(log: Path) -> None:
    assert list(read_logs(log, since=101, until=102.5)) == ALL[1:4]
    assert list(read_logs(log, tail=2)) == ALL[3:]
    assert list(read_logs(log, until="103", tail=1)) == ALL[4:]
    assert list(read_logs(log, tail=0)) == []


def test_following_reads_what_was_written_before_the_end(log: Path) -> None:
    said = [b"!\n", b"last"]

    def speaks() -> bool:
        if not said:
            return False
        with log.open("ab") as file:
            file.write(said.pop(0))
        return bool(said)

    lines = list(read_logs(log, speaks=speaks, follow=True))
    assert lines == [*ALL[:4], LogLine(103, b"five!\n"), LogLine(103, b"last")]


def test_a_log_without_times_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_bytes(b"line\n")
    (line,) = read_logs(tmp_path / "engine.log")
    assert abs(line.time - time.time()) < 60


def test_no_log_has_no_lines(tmp_path: Path) -> None:
    assert list(read_logs(tmp_path / "console.log")) == []


def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    write(tmp_path / "console.log", [(1, b"x" * (3 * LINE_BYTES + 5))])
    sizes = [len(line.text) for line in read_logs(tmp_path / "console.log")]
    assert sum(sizes) == 3 * LINE_BYTES + 5
    assert max(sizes) <= 2 * LINE_BYTES


def test_entries_that_make_no_sense_harm_nothing(log: Path) -> None:
    times = log.with_name("console.log.times")
    times.write_bytes(struct.pack("=4Q", 5, 1 << 60, 2**64 - 1, 0) + b"half")
    assert b"".join(line.text for line in read_logs(log)) == b"".join(line.text for line in ALL)


def test_moments_are_spans_ago_dates_or_seconds() -> None:
    now = time.time()
    for text, ago in (("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("90s", 90), ("250ms", 0.25), ("2d", 172800)):
        assert abs(now - ago - moment(text)) < 1
    assert moment("1700000000.5") == moment(1700000000.5) == 1700000000.5
    assert moment("2026-01-31T12:00:00Z") == moment(datetime(2026, 1, 31, 12, tzinfo=UTC)) == 1769860800
    assert moment("2026-01-31") == datetime(2026, 1, 31).astimezone().timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "10x", "m10", "-5m", "2026-13-01", "1e5"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        moment(text)


def test_times_print_in_utc_to_the_millisecond() -> None:
    assert utc(1769860800.0499) == "2026-01-31T12:00:00.049Z"
