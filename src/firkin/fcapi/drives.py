"""/drives/{drive_id}: block devices. The root device always comes first in the guest (vda)."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from firkin.fcapi.limits import RateLimiter
from firkin.fcapi.wire import Wire


class CacheType(StrEnum):
    """`Unsafe` ignores the guest's flushes; `Writeback` makes them durable."""

    UNSAFE = "Unsafe"
    WRITEBACK = "Writeback"


class IoEngine(StrEnum):
    ASYNC = "Async"
    SYNC = "Sync"


class Drive(Wire, frozen=True, kw_only=True):
    """PUT /drives/{drive_id}."""

    rust: ClassVar[str] = "BlockDeviceConfig"

    drive_id: str
    partuuid: str | None = None
    is_root_device: bool
    cache_type: CacheType = CacheType.UNSAFE
    is_read_only: bool | None = None
    path_on_host: str | None = None
    rate_limiter: RateLimiter | None = None
    io_engine: IoEngine | None = None
    socket: str | None = None


class DrivePatch(Wire, frozen=True, kw_only=True):
    """PATCH /drives/{drive_id}: another file, other limits, or both."""

    rust: ClassVar[str] = "BlockDeviceUpdateConfig"

    drive_id: str
    path_on_host: str | None = None
    rate_limiter: RateLimiter | None = None
