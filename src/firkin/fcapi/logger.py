"""/logger: where the VMM's own log goes, and how much of it."""

from __future__ import annotations

from typing import ClassVar

from firkin.fcapi.texts import LogLevel
from firkin.fcapi.wire import PathText, Wire


class Logger(Wire, frozen=True, kw_only=True):
    """PUT /logger. `level` is matched without regard to case: Off, Trace, Debug, Info, Warn, Warning, Error."""

    rust: ClassVar[str] = "LoggerConfig"

    log_path: PathText | None = None
    level: LogLevel | None = None
    show_level: bool | None = None
    show_log_origin: bool | None = None
    module: str | None = None
