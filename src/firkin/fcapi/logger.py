"""/logger: where the VMM's own log goes, and how much of it."""

from __future__ import annotations

from firkin.fcapi.wire import Wire


class Logger(Wire, frozen=True, kw_only=True):
    """PUT /logger. `level` is matched without regard to case: Off, Trace, Debug, Info, Warn, Warning, Error."""

    log_path: str | None = None
    level: str | None = None
    show_level: bool | None = None
    show_log_origin: bool | None = None
    module: str | None = None
