"""Progress is a scope: `with step("Formatting rootfs"):` reports, times and nests.

The library only tells; whoever installs a `Reporter` (the command line does) decides how it looks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

log = logging.getLogger("firkin")


class Reporter(Protocol):
    """Receives the story of long work as it happens. Calls are nested and come from one thread."""

    def started(self, title: str) -> None: ...

    def advanced(self, title: str, done: int, total: int | None, unit: str) -> None: ...

    def finished(self, title: str, seconds: float, *, ok: bool) -> None: ...


class LogReporter:
    """What a program gets that installs nothing: lines in the `firkin` logger."""

    def started(self, title: str) -> None:
        log.info("%s", title)

    def advanced(self, title: str, done: int, total: int | None, unit: str) -> None:
        log.debug("%s: %s of %s %s", title, done, total, unit)

    def finished(self, title: str, seconds: float, *, ok: bool) -> None:
        log.info("%s: %s after %.3f s", title, "done" if ok else "failed", seconds)


_reporter: Reporter = LogReporter()


def install(reporter: Reporter) -> None:
    """Send all further progress to `reporter`."""
    global _reporter  # noqa: PLW0603 - one process has one screen
    _reporter = reporter


class Step:
    """One piece of long work, open while its scope runs."""

    def __init__(self, title: str) -> None:
        self.title = title

    def advance(self, done: int, total: int | None = None, unit: str = "bytes") -> None:
        """Say how far it is: `done` of `total` (None: unknown), in `unit`."""
        _reporter.advanced(self.title, done, total, unit)


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Report the work of this scope under `title`."""
    began = time.perf_counter()
    _reporter.started(title)
    ok = False
    try:
        yield Step(title)
        ok = True
    finally:
        _reporter.finished(title, time.perf_counter() - began, ok=ok)
