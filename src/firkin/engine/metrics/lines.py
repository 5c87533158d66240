"""From totals to lines: what changed since the last one, with every field that a reader expects. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firkin.engine.metrics import schema


class Lines:
    """Remembers what the last line told. One that got lost was never told: the next one tells it too."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], int] = {}
        self._telling: dict[tuple[str, str], int] = {}

    def told(self) -> None:
        """The last line has been written."""
        self._told |= self._telling

    def next(self, totals: Mapping[str, Mapping[str, int]], utc_timestamp_ms: int) -> dict[str, Any]:
        line: dict[str, Any] = {"utc_timestamp_ms": utc_timestamp_ms}
        for group in (*schema.GROUPS, *sorted(totals.keys() - schema.GROUPS.keys())):
            line[group] = self._group(group, totals.get(group, {}))
        return line

    def _group(self, group: str, values: Mapping[str, int]) -> dict[str, int | dict[str, int]]:
        return {
            field: self._value(group, field, values[field]) if field in values else schema.zero(field)
            for field in schema.fields_of(group)
        }

    def _value(self, group: str, field: str, total: int) -> int:
        if schema.is_stored(group, field):
            return total
        before = self._told.get((group, field), 0)
        self._telling[group, field] = total
        # A source may start anew, as a tap that was made again.
        return total - before if total >= before else total
