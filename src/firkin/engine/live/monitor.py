"""The seams to the monitor of QEMU and to the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Monitor(Protocol):
    """Speaks with the running QEMU."""

    def execute(self, command: str, *, timeout_s: float = ..., fd: int | None = None, **arguments: object) -> Any:
        """Run a command, which may come with a descriptor, and wait for what it returns. Raises: EngineError."""


class Timer(Protocol):
    """Runs things later."""

    def later(self, delay_s: float, action: Callable[[], None]) -> None: ...
