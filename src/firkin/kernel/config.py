"""Kernel configurations as data: what was asked for, what came out, and which of the former was lost. Pure."""

from __future__ import annotations

import re

ASSIGNMENT = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)
UNSET = re.compile(r"^# (CONFIG_\w+) is not set$", re.MULTILINE)


def as_fragment(text: str) -> str:
    """Options as a person or the kernel's own tools write them, with `is not set` as the assignment that it means."""
    return UNSET.sub(r"\1=n", text)


def parse(text: str) -> dict[str, str]:
    """Each option that a configuration sets, with its value as written; `is not set` counts as absent."""
    return dict(ASSIGNMENT.findall(text))


def lost(wanted: str, result: str) -> list[str]:
    """The assignments of the fragment `wanted` that do not hold in the finished configuration `result`.

    The kernel's own tool drops an option without a word where a dependency is missing or another option forces it.
    """
    have = parse(result)
    return sorted(f"{name}={value}" for name, value in parse(wanted).items() if have.get(name, "n") != value)
