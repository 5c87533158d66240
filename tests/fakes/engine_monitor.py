"""A monitor without QEMU, which answers and remembers, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from firkin.errors import EngineError


class FakeMonitor:
    """Knows what a QEMU of 128 MiB would answer; `replies` overrides, `refused` fails."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.refused = ""
        self.replies: dict[str, Any] = {
            "add-fd": {"fdset-id": 9},
            "query-status": {"running": True},
            "query-blockstats": [],
            "query-balloon": {"actual": 100 << 20},
            "x-query-virtio-status": {"started": True},
            "qom-get": {"stats": {}},
        }

    def execute(self, command: str, *, timeout_s: float = 0, fd: int | None = None, **arguments: object) -> Any:
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.commands.append((command, arguments))
        if command == self.refused:
            raise EngineError(f"{command}: refused")
        return self.replies.get(command, {})

    def last(self, command: str) -> dict[str, Any]:
        return next(arguments for name, arguments in reversed(self.commands) if name == command)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.commands]


class FakeTimer:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        self.waiting.append(action)

    def pass_by(self) -> None:
        waiting, self.waiting = self.waiting, []
        for action in waiting:
            action()
