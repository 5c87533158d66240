"""Totals since the start, gathered from whoever counts: numbers by group and field. Only what is known is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from firkin.engine import exits
from firkin.engine.vmm import Vmm
from firkin.errors import EngineError

Totals = dict[str, Mapping[str, int]]


class Collector:
    """Asks everybody. `panics` is told to it, since nobody lives to count that."""

    def __init__(self, vmm: Vmm) -> None:
        self._vmm = vmm
        self.panics = 0
        self.missed_lines = 0

    def totals(self) -> Totals:
        vmm = self._vmm
        return {
            **vmm.api_calls.by_group,
            **dict(self._devices()),
            "api_server": vmm.start_up,
            "deprecated_api": {"deprecated_http_api_calls": vmm.api_calls.deprecated},
            "latencies_us": vmm.latencies.us,
            "logger": {
                "missed_metrics_count": self.missed_lines,
                "missed_log_count": vmm.journal.missed,
                "rate_limited_log_count": vmm.journal.rate_limited,
            },
            "signals": exits.RECEIVED,
            "vmm": {"panic_count": self.panics},
        }

    def _devices(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        resources = self._vmm.resources
        yield from _each_and_sum("block", {drive.config.drive_id: {} for drive in resources.drives} | self._drives())
        yield from _each_and_sum("net", {nic.config.iface_id: asdict(nic.device.counters) for nic in resources.nics})
        if resources.mmds is not None:
            yield "mmds", asdict(resources.mmds.metrics)
        if resources.vsock_device is not None:
            yield "vsock", resources.vsock_device.counters()
        if self._vmm.started:
            yield "uart", self._vmm.guest.console_counters()

    def _drives(self) -> dict[str, Mapping[str, int]]:
        if not self._vmm.started:
            return {}
        try:
            return dict(self._vmm.guest.live.drives.counters())
        except EngineError:
            return {}  # QEMU has ended, and took its numbers along


def _each_and_sum(kind: str, devices: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, Mapping[str, int]]]:
    total: dict[str, int] = {}
    for name, counts in devices.items():
        yield f"{kind}_{name}", counts
        for field, value in counts.items():
            total[field] = total.get(field, 0) + value
    yield kind, total
