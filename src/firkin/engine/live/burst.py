"""One-time bursts. QEMU knows none: a throttle starts with the burst and gets its bucket once that is used up."""

from __future__ import annotations

from firkin.engine import throttle
from firkin.engine.live.monitor import Monitor, Timer
from firkin.engine.qemu_disks import DiskNames
from firkin.engine.throttle import Burst
from firkin.errors import EngineError
from firkin.fcapi.limits import RateLimiter, TokenBucket

_LOOK_EVERY_S = 0.2


class Bursts:
    """Which drives still live on a burst, looked at a few times a second while there is one."""

    def __init__(self, timer: Timer, monitor: Monitor) -> None:
        self._timer = timer
        self._monitor = monitor
        self._watched: dict[int, _Watched] = {}
        self._looking = False

    def watch(self, number: int, limiter: RateLimiter | None) -> None:
        """Drive `number` has just got these limits. Raises: EngineError."""
        self._watched.pop(number, None)
        burst = throttle.burst_of(limiter)
        if limiter is None or not any(burst):
            return
        self._watched[number] = _Watched(limiter, burst, self._used().get(DiskNames(number).device, (0, 0)))
        if not self._looking:
            self._looking = True
            self._timer.later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        try:
            used = self._used()
            for number, watched in list(self._watched.items()):
                self._settle(number, watched, used.get(DiskNames(number).device, (0, 0)))
        except EngineError:
            self._watched.clear()  # QEMU is going
        self._looking = bool(self._watched)
        if self._looking:
            self._timer.later(_LOOK_EVERY_S, self._look)

    def _settle(self, number: int, watched: _Watched, used: tuple[int, int]) -> None:
        left = watched.left(used)
        if left == watched.burst:
            return
        limits = throttle.drive_limits(watched.limiter, left)
        self._monitor.execute("qom-set", path=f"/objects/{DiskNames(number).group}", property="limits", value=limits)
        watched.burst = left
        if not any(left):
            del self._watched[number]

    def _used(self) -> dict[str, tuple[int, int]]:
        """By device: bytes and operations since its start."""
        return {
            str(each.get("qdev")): (
                each["stats"]["rd_bytes"] + each["stats"]["wr_bytes"],
                each["stats"]["rd_operations"] + each["stats"]["wr_operations"],
            )
            for each in self._monitor.execute("query-blockstats")
        }


class _Watched:
    """A limiter, what is left of its bursts, and how much had been used when it came."""

    def __init__(self, limiter: RateLimiter, burst: Burst, used_before: tuple[int, int]) -> None:
        self.limiter = limiter
        self.burst = burst
        self._before = used_before

    def left(self, used: tuple[int, int]) -> Burst:
        kinds = zip(self.burst, (self.limiter.bandwidth, self.limiter.ops), self._before, used, strict=True)
        return Burst(*(had and _has_left(bucket, now - before) for had, bucket, before, now in kinds))


def _has_left(bucket: TokenBucket | None, used: int) -> bool:
    return bucket is not None and used < (bucket.one_time_burst or 0)
