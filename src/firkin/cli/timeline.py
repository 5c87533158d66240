"""How a machine's start is shown: a row per phase, with a bar where it lies in the whole."""

from __future__ import annotations

from collections.abc import Sequence

import click

from firkin.cli.output import columns, print_json
from firkin.manager.timeline import Span, spans

BAR = 40


def print_timeline(timeline: dict[str, float], *, as_json: bool = False, err: bool = False) -> None:
    """The phases of one start, and their sum; on stderr for who asked for something else."""
    found = spans(timeline)
    total = max((span.ended_ms for span in found), default=0.0)
    if as_json:
        phases = [
            {"stage": span.stage, "phase": span.phase, "began_ms": span.began_ms, "took_ms": span.took_ms}
            for span in found
        ]
        print_json({"total_ms": total, "phases": phases})
        return
    rows = [*(_row(span, total) for span in found), ("", "total", f"{total:9.1f}", "", "")]
    for line in columns(("STAGE", "PHASE", "TOOK (ms)", "SHARE", "0" + f"{total:.0f} ms".rjust(BAR - 1)), rows):
        click.echo(line, err=err)


def _row(span: Span, total: float) -> Sequence[object]:
    share = span.took_ms / total if total else 0.0
    return span.stage, span.phase, f"{span.took_ms:9.1f}", f"{share:5.1%}", _bar(span, total)


def _bar(span: Span, total: float) -> str:
    """At least one mark, within the width."""
    per_ms = BAR / total if total else 0.0
    start = min(int(span.began_ms * per_ms), BAR - 1)
    return " " * start + "#" * max(1, round(span.ended_ms * per_ms) - start)
