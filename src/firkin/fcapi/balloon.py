"""/balloon: memory that the guest gives back, and what it tells of its own."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from firkin.fcapi.wire import U16, U32, Wire


class Balloon(Wire, frozen=True, kw_only=True):
    """PUT and GET /balloon. Sizes in MiB; a `stats_polling_interval_s` of 0 seconds means no statistics."""

    rust: ClassVar[str] = "BalloonDeviceConfig"

    amount_mib: U32
    deflate_on_oom: bool
    stats_polling_interval_s: U16 = 0
    free_page_hinting: bool = False
    free_page_reporting: bool = False


class BalloonUpdate(Wire, frozen=True, kw_only=True):
    """PATCH /balloon."""

    rust: ClassVar[str] = "BalloonUpdateConfig"

    amount_mib: U32


class BalloonStatsUpdate(Wire, frozen=True, kw_only=True):
    """PATCH /balloon/statistics. Cannot switch statistics on or off."""

    rust: ClassVar[str] = "BalloonUpdateStatsConfig"

    stats_polling_interval_s: U16


class BalloonStats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """GET /balloon/statistics. The optional ones are there once the guest has told them; sizes in bytes."""

    target_pages: int
    actual_pages: int
    target_mib: int
    actual_mib: int
    swap_in: int | None = None
    swap_out: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    free_memory: int | None = None
    total_memory: int | None = None
    available_memory: int | None = None
    disk_caches: int | None = None
    hugetlb_allocations: int | None = None
    hugetlb_failures: int | None = None
    oom_kill: int | None = None
    alloc_stall: int | None = None
    async_scan: int | None = None
    direct_scan: int | None = None
    async_reclaim: int | None = None
    direct_reclaim: int | None = None


class HintingStart(msgspec.Struct, frozen=True, kw_only=True):
    """PATCH /balloon/hinting/start; the whole body may be absent. Unknown fields are ignored, as upstream."""

    rust: ClassVar[str] = "StartHintingCmd"

    acknowledge_on_stop: bool = True


class HintingStatus(Wire, frozen=True, kw_only=True):
    """GET /balloon/hinting/status."""

    host_cmd: int
    guest_cmd: int | None
