"""How results look: aligned columns for people, JSON for programs, progress on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec

from firkin import progress

UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
AGO = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def print_json(value: Any) -> None:
    """One JSON document on stdout, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as docker and kubectl print them."""
    for line in columns(titles, rows):
        click.echo(line)


def columns(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A table's lines: columns as wide as their widest cell, two blanks between them."""
    cells = [[printable(str(cell)) for cell in row] for row in (titles, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def printable(text: str) -> str:
    """Safe to show: what would move the cursor, hide text or turn it around is written as an escape, `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """As `printable`, but its lines stay lines and its tabs blanks."""
    return "\n".join(printable(line.expandtabs()) for line in text.splitlines())


def size(count: float) -> str:
    """Bytes as people say them, `12.3 MiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    power = min(int(math.log2(count)) // 10, len(UNITS))
    return f"{count / 1024**power:.1f} {UNITS[power - 1]}"


def duration(seconds: float) -> str:
    """Processor time as `ps` writes it, `1:02:03`."""
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}:{minutes:02}:{int(seconds) % 60:02}"


def ago(when: float | None) -> str:
    """A past time as people say it."""
    if when is None:
        return "-"
    seconds = max(0, int(time.time() - when))
    for size, unit in AGO:
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


def utc(when: float) -> str:
    """A time for programs and people, to the millisecond, as docker prints it."""
    seconds, milliseconds = divmod(int(when * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z"


class StepPrinter(progress.Reporter):
    """Long steps on stderr; those that take no time stay silent."""

    SILENT_S = 1.0

    def __init__(self) -> None:
        self._width = 0

    def started(self, title: str) -> None:
        self._show(f"{title} ...")

    def advanced(self, title: str, done: int, total: int | None, unit: str) -> None:
        if unit == "bytes":
            self._show(f"{title}: {done / 2**20:.1f}" + (f" of {total / 2**20:.1f} MiB" if total else " MiB"))
        else:
            self._show(f"{title}: {done}" + (f" of {total} {unit}" if total else f" {unit}"))

    def finished(self, title: str, seconds: float, *, ok: bool) -> None:
        self._show("")
        if seconds >= self.SILENT_S and ok:
            click.echo(f"{title}: {seconds:.1f} s", err=True)

    def _show(self, text: str) -> None:
        """A line that the next one overwrites; only where somebody watches."""
        if sys.stderr.isatty():
            click.echo("\r" + text.ljust(self._width), err=True, nl=False)
            if not text:
                click.echo("\r", err=True, nl=False)
            self._width = len(text)


def show_progress() -> None:
    """Tell the person at the terminal what takes long."""
    progress.install(StepPrinter())
