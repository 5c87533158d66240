"""How long each phase of a machine's start took: from the marks in its record to spans that add up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

GUEST = "guest: "  # before the guest's own marks: milliseconds since its kernel began
COMMAND = "command"

# Who works in a phase; those that are not here are firkin's own on this host.
STAGES = {
    "old engine ended": "engine",
    "engine spawned": "engine",
    "instance started": "engine",
    "snapshot loaded": "restore",
    "init": "kernel",
    "root mounted": "init",
    "network up": "init",
    "agent ready": "agent",
    "identity": "agent",
    COMMAND: "command",
}
LABELS = {"init": "init started", COMMAND: "first command"}


@dataclass(frozen=True, slots=True)
class Span:
    """One phase, in milliseconds since the start began."""

    stage: str
    phase: str
    began_ms: float
    ended_ms: float

    @property
    def took_ms(self) -> float:
        return round(self.ended_ms - self.began_ms, 1)


def spans(timeline: dict[str, float]) -> list[Span]:
    """The phases in their order, one after the other. `timeline` maps each to the moment at which it ended.

    What the guest tells of its boot divides the phase in which the host waited for it.
    """
    ends = {phase: at for phase, at in timeline.items() if not phase.startswith(GUEST)}
    told = {phase: at for phase, at in timeline.items() if phase.startswith(GUEST)}
    found, before = [], 0.0
    for phase, at in ends.items():
        found += _divided(told, before, at) if told and phase == "agent ready" else [_span(phase, before, at)]
        before = at
    return found


def _divided(told: dict[str, float], began: float, ended: float) -> list[Span]:
    """The guest's last mark is its call to the host; its clock may be off, so nothing is let out of the phase."""
    offset = ended - max(told.values())
    moments = [began, *(min(max(began, offset + at), ended) for at in told.values())]
    pairs = zip(told, pairwise(moments), strict=True)
    return [_span(phase, since, until) for phase, (since, until) in pairs]


def _span(phase: str, began: float, ended: float) -> Span:
    name = phase.removeprefix(GUEST)
    return Span(STAGES.get(name, "host"), LABELS.get(name, name), round(began, 1), round(ended, 1))


def then_command(timeline: dict[str, float], took_ms: float) -> dict[str, float]:
    """The timeline of a start that was followed by a command at once."""
    ends = [at for phase, at in timeline.items() if not phase.startswith(GUEST)]
    return timeline | {COMMAND: round(max(ends, default=0.0) + took_ms, 1)}
