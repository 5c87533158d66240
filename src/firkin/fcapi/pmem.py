"""/pmem/{id}: files of the host as persistent memory of the guest."""

from __future__ import annotations

from typing import ClassVar

from firkin.fcapi.limits import RateLimiter
from firkin.fcapi.wire import Wire


class Pmem(Wire, frozen=True, kw_only=True):
    """PUT /pmem/{id}."""

    rust: ClassVar[str] = "PmemConfig"

    id: str
    path_on_host: str
    root_device: bool = False
    read_only: bool = False
    rate_limiter: RateLimiter | None = None


class PmemPatch(Wire, frozen=True, kw_only=True):
    """PATCH /pmem/{id}."""

    rust: ClassVar[str] = "PmemDeviceUpdateConfig"

    id: str
    rate_limiter: RateLimiter | None = None
