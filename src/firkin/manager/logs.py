"""A machine's console log as lines with their times: from when, until when, how many, and on and on."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from firkin.errors import UsageError
from firkin.host.watch import FolderWatch
from firkin.vmm.rotated import RotatedLog, Run

LINE_BYTES = 65536  # a longer line comes in pieces: a guest need not ever end one
PAUSE_S = 0.1
LOOK_S = 0.5  # how often a silent machine is asked whether it lives
UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")

Moment = str | float | datetime


class LogLine(NamedTuple):
    """What the guest wrote on its console, as bytes and with its line end, and when: seconds since 1970.

    Without a line end it is a part of a line: the last one so far, or one that is longer than 65,536 bytes.
    """

    time: float
    text: bytes


def moment(when: Moment) -> float:
    """Seconds since 1970 of a datetime, of such seconds, or of a text: `10m` or `1h30m` ago, or a date and time.

    A date without a zone is in this host's.

    Raises:
        UsageError: the text is neither.
    """
    if isinstance(when, datetime):
        return when.timestamp()
    if not isinstance(when, str):
        return float(when)
    if re.fullmatch(rf"(?:{SPAN.pattern})+", when):
        return time.time() - sum(float(number) * UNITS_S[unit] for number, unit in SPAN.findall(when))
    try:
        return float(when) if re.fullmatch(r"\d+(\.\d+)?", when) else datetime.fromisoformat(when).timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{when!r} is no time", hint="10m, 1h30m, 2026-01-31T12:00, 2026-01-31T12:00:00Z or seconds since 1970"
        ) from error


def read_logs(
    path: Path,
    *,
    speaks: Callable[[], bool] = lambda: False,
    follow: bool = False,
    since: Moment | None = None,
    until: Moment | None = None,
    tail: int | None = None,
) -> Iterator[LogLine]:
    """Lines of the log at `path`; with `follow` go on while `speaks()` says that more can come.

    `tail` is how many lines of those that are there are given, the last ones. While it follows, a line that is not
    ended comes in parts, each as soon as the guest pauses.

    Raises:
        UsageError: `since` or `until` is no time.
    """
    first = moment(since) if since is not None else float("-inf")
    last = moment(until) if until is not None else float("inf")
    return _read(path, speaks if follow else None, first, last, tail)


def _read(
    path: Path, speaks: Callable[[], bool] | None, first: float, last: float, tail: int | None
) -> Iterator[LogLine]:
    lines = _Lines()
    with RotatedLog(path) as log:
        history: Iterable[LogLine] = _between(_history(log, lines, ends=speaks is None), first, last)
        yield from history if tail is None else deque(history, maxlen=tail)
        if speaks is not None:
            yield from _between(_following(path.parent, log, lines, speaks, last), first, last)


def _between(lines: Iterable[LogLine], first: float, last: float) -> Iterator[LogLine]:
    return (line for line in lines if first <= line.time <= last)


def _history(log: RotatedLog, lines: _Lines, *, ends: bool) -> Iterator[LogLine]:
    """What is there now: a guest that writes as fast as we are read must not keep us."""
    began = time.time()
    while runs := log.read():
        for run in runs:
            yield from lines.feed(run)
        if runs[0].time > began:
            break
    if ends:
        yield from lines.flush()


def _following(
    folder: Path, log: RotatedLog, lines: _Lines, speaks: Callable[[], bool], last: float
) -> Iterator[LogLine]:
    with FolderWatch(folder) as watch:
        while time.time() < last:
            more = speaks()  # asked before the reading: what it wrote until its end is then read
            if runs := log.read():
                for run in runs:
                    yield from lines.feed(run)
            elif not more:
                break
            elif not watch.wait(min(PAUSE_S if lines.held else LOOK_S, max(0.0, last - time.time()))):
                yield from lines.flush()
    yield from lines.flush()


class _Lines:
    """Cuts what comes into lines; each has the time of its first byte."""

    def __init__(self) -> None:
        self.held = b""
        self._since = 0.0

    def feed(self, run: Run) -> Iterator[LogLine]:
        *whole, rest = run.data.split(b"\n")
        for text in whole:
            yield LogLine(self._since if self.held else run.time, self.held + text + b"\n")
            self.held = b""
        if rest and not self.held:
            self._since = run.time
        self.held += rest
        if len(self.held) >= LINE_BYTES:
            yield from self.flush()

    def flush(self) -> Iterator[LogLine]:
        """The line that is not ended, as far as it has come."""
        if self.held:
            text, self.held = self.held, b""
            yield LogLine(self._since, text)
