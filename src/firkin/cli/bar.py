"""A progress bar with bytes and rate on stderr. It appears, and rich is imported, only when the work takes a while."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from firkin import progress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SILENT_S = 0.5
REDRAW_S = 0.1


class BarReporter(progress.Reporter):
    """Shows the bytes of one step at a time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next_s = self._began + SILENT_S
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> BarReporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def started(self, title: str) -> None: ...

    def advanced(self, title: str, done: int, total: int | None, unit: str) -> None:  # noqa: ARG002 - copies count bytes
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + REDRAW_S
        bar = self._bar or self._open()
        if self._task is None:
            self._task = bar.add_task(title, total=total)
        # An archive is a little larger than what it holds.
        bar.update(self._task, completed=done if total is None else min(done, total))

    def finished(self, title: str, seconds: float, *, ok: bool) -> None: ...

    def _open(self) -> Progress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        console = Console(stderr=True)
        self._bar = Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True)
        self._bar.start()
        return self._bar
