"""/serial: where the guest's console goes."""

from __future__ import annotations

from typing import ClassVar

from firkin.fcapi.limits import TokenBucket
from firkin.fcapi.wire import PathText, Wire


class Serial(Wire, frozen=True, kw_only=True):
    """PUT /serial. With a path, the console has no input. The limit is in bytes; what exceeds it is dropped."""

    rust: ClassVar[str] = "SerialConfig"

    serial_out_path: PathText | None = None
    rate_limiter: TokenBucket | None = None
