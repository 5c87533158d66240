"""The balloon of a running guest: its target, and what the guest tells of its memory."""

from __future__ import annotations

from typing import NoReturn

import msgspec

from firkin.engine.faults import NO_DEVICE, Area, Fault
from firkin.engine.live.monitor import Monitor
from firkin.engine.qemu_argv import BALLOON
from firkin.engine.resources import Resources
from firkin.fcapi.balloon import Balloon, BalloonStats, BalloonStatsUpdate, BalloonUpdate

_PATH = f"/machine/peripheral/{BALLOON}"
_MIB = 1 << 20
_PAGES_PER_MIB = 256
_UNKNOWN = 2**64 - 1
_STATISTICS = {
    "swap_in": "stat-swap-in",
    "swap_out": "stat-swap-out",
    "major_faults": "stat-major-faults",
    "minor_faults": "stat-minor-faults",
    "free_memory": "stat-free-memory",
    "total_memory": "stat-total-memory",
    "available_memory": "stat-available-memory",
    "disk_caches": "stat-disk-caches",
    "hugetlb_allocations": "stat-htlb-pgalloc",
    "hugetlb_failures": "stat-htlb-pgfail",
}


class LiveBalloon:
    """The guest's balloon, if one was configured."""

    def __init__(self, monitor: Monitor, resources: Resources) -> None:
        self._monitor = monitor
        self._resources = resources

    def begin(self) -> None:
        """Set target and polling as configured. Raises: EngineError."""
        balloon = self._resources.balloon
        if balloon is None:
            return
        if balloon.amount_mib:
            self._set_target(balloon.amount_mib)
        if balloon.stats_polling_interval_s:
            self._poll_every(balloon.stats_polling_interval_s)

    def resize(self, body: BalloonUpdate) -> None:
        """Ask the guest to give back so much. Raises: Fault, EngineError."""
        config = self._config(Area.BALLOON_UPDATE)
        memory_mib = self._resources.machine.mem_size_mib
        if not self._monitor.execute("x-query-virtio-status", path=_PATH)["started"]:
            raise Fault("Balloon: Device not activated yet.", Area.BALLOON_UPDATE)
        if body.amount_mib > memory_mib:
            raise Fault(f"Balloon: Requested memory should be less than {memory_mib}MiB", Area.BALLOON_UPDATE)
        self._set_target(body.amount_mib)
        self._resources.balloon = msgspec.structs.replace(config, amount_mib=body.amount_mib)

    def statistics(self) -> BalloonStats:
        """The sizes, and what the guest told last. Raises: Fault, EngineError."""
        config = self._config(Area.VM)
        if not config.stats_polling_interval_s:
            raise Fault("Balloon: Received stats query when stats are disabled.", Area.VM)
        taken = self._resources.machine.mem_size_mib * _MIB - self._monitor.execute("query-balloon")["actual"]
        told = self._monitor.execute("qom-get", path=_PATH, property="guest-stats")["stats"]
        values = {ours: told[theirs] for ours, theirs in _STATISTICS.items() if told.get(theirs, _UNKNOWN) != _UNKNOWN}
        return BalloonStats(
            target_pages=config.amount_mib * _PAGES_PER_MIB,
            actual_pages=taken * _PAGES_PER_MIB // _MIB,
            target_mib=config.amount_mib,
            actual_mib=taken // _MIB,
            **values,
        )

    def set_polling(self, body: BalloonStatsUpdate) -> None:
        """Have the guest tell more or less often. Raises: Fault, EngineError."""
        config = self._config(Area.BALLOON_UPDATE)
        old, new = config.stats_polling_interval_s, body.stats_polling_interval_s
        if old == new:
            return
        if not old or not new:
            raise Fault("Balloon: Statistics cannot be enabled/disabled after activation.", Area.BALLOON_UPDATE)
        self._poll_every(new)
        self._resources.balloon = msgspec.structs.replace(config, stats_polling_interval_s=new)

    def refuse_hinting(self) -> NoReturn:
        """Every call about hinting: no guest of this engine has it. Raises: Fault."""
        self._config(Area.BALLOON_UPDATE)
        raise Fault("Balloon: Attempting to use hinting when not enabled", Area.BALLOON_UPDATE)

    def _config(self, area: Area) -> Balloon:
        if self._resources.balloon is None:
            raise Fault(NO_DEVICE, area)
        return self._resources.balloon

    def _set_target(self, amount_mib: int) -> None:
        # QEMU counts what the guest keeps, and a guest that keeps nothing is no guest.
        kept = max(1, self._resources.machine.mem_size_mib - amount_mib)
        self._monitor.execute("balloon", value=kept * _MIB)

    def _poll_every(self, interval_s: int) -> None:
        self._monitor.execute("qom-set", path=_PATH, property="guest-stats-polling-interval", value=interval_s)
