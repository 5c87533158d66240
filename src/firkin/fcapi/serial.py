"""/serial: where the guest's console goes."""

from __future__ import annotations

from firkin.fcapi.limits import TokenBucket
from firkin.fcapi.wire import Wire


class Serial(Wire, frozen=True, kw_only=True):
    """PUT /serial. With a path, the console has no input. The limit is in bytes; what exceeds it is dropped."""

    serial_out_path: str | None = None
    rate_limiter: TokenBucket | None = None
