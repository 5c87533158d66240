"""/entropy: the host's random numbers for the guest."""

from __future__ import annotations

from typing import ClassVar

from firkin.fcapi.limits import RateLimiter
from firkin.fcapi.wire import Wire


class Entropy(Wire, frozen=True, kw_only=True):
    """PUT /entropy."""

    rust: ClassVar[str] = "EntropyDeviceConfig"

    rate_limiter: RateLimiter | None = None
