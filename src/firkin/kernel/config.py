"""Kernel configurations as data: what was asked for, what came out, and which of the former was lost. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

ASSIGNMENT = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)


def parse(text: str) -> dict[str, str]:
    """Each option that a configuration or fragment sets, with its value as written; `is not set` counts as absent."""
    return dict(ASSIGNMENT.findall(text))


def lost(wanted: str, result: str) -> list[str]:
    """The assignments of the fragment `wanted` that do not hold in the finished configuration `result`.

    The kernel's own tool drops an option without a word where a dependency is missing or another option forces it.
    """
    have = parse(result)
    return [f"{name}={value}" for name, value in parse(wanted).items() if have.get(name, "n") != value]


@dataclass(frozen=True, slots=True)
class BuildKey:
    """What decides a build's outcome."""

    source_version: str
    fragment: str
    compiler: str

    @property
    def tag(self) -> str:
        """Ten hexadecimal digits, part of the kernel's `uname -r`: a kernel tells from what it was built."""
        text = f"{self.source_version}\0{self.fragment}\0{self.compiler}"
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def suffix(self) -> str:
        """The end of the kernel's release."""
        return f"-firkin-{self.tag}"
