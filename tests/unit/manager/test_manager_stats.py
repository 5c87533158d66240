"""Rates between two readings, and what is not known stays unknown."""

from __future__ import annotations

from dataclasses import replace

from firkin.agent.stats import GuestStats
from firkin.host.usage import HostUsage
from firkin.manager.stats import Rates, Stats
from firkin.vmm.metrics import EngineStats

GUEST = GuestStats(
    uptime_s=10.0,
    vcpus=2,
    cpu_busy_s=5.0,
    cpu_idle_s=15.0,
    load_1m=0.1,
    memory_used_bytes=50,
    memory_total_bytes=100,
    disk_read_bytes=1000,
    disk_written_bytes=1000,
    net_received_bytes=1000,
    net_sent_bytes=1000,
    tasks=50,
)
BEFORE = Stats(
    monotonic_s=100.0,
    guest=GUEST,
    engine=EngineStats(net_sent_bytes=500),
    host=HostUsage(cpu_s=7.0, memory_bytes=1),
)


def test_rates_are_of_the_time_between() -> None:
    now = replace(
        BEFORE,
        monotonic_s=102.0,
        guest=replace(GUEST, cpu_busy_s=6.0, cpu_idle_s=18.0),
        engine=EngineStats(net_sent_bytes=900, disk_read_bytes=10),
        host=HostUsage(cpu_s=10.0, memory_bytes=1),
    )
    assert now.since(BEFORE) == Rates(
        seconds=2.0,
        cpu_percent=50.0,  # a quarter of the time of two vcpus
        host_cpu_percent=150.0,
        disk_read_bytes_per_s=5.0,
        disk_written_bytes_per_s=0.0,
        net_received_bytes_per_s=0.0,
        net_sent_bytes_per_s=200.0,
    )


def test_the_guest_is_asked_only_where_the_engine_does_not_know() -> None:
    assert BEFORE.carried == BEFORE.engine
    assert replace(BEFORE, engine=None).carried == GUEST


def test_a_frozen_guest_has_a_cost_and_no_rate_of_its_own() -> None:
    rates = replace(BEFORE, monotonic_s=101.0, guest=None).since(BEFORE)
    assert (rates.cpu_percent, rates.host_cpu_percent, rates.net_sent_bytes_per_s) == (None, 0.0, 0.0)


def test_idle_time_that_goes_back_was_not_idle() -> None:
    now = replace(BEFORE, monotonic_s=101.0, guest=replace(GUEST, cpu_busy_s=5.5, cpu_idle_s=14.9))
    assert now.since(BEFORE).cpu_percent == 200.0


def test_counters_that_go_back_have_no_rate() -> None:
    now = replace(
        BEFORE,
        monotonic_s=101.0,
        engine=EngineStats(),
        host=HostUsage(cpu_s=1.0, memory_bytes=1),
    )
    rates = now.since(BEFORE)
    assert (rates.host_cpu_percent, rates.net_sent_bytes_per_s) == (None, None)


def test_other_sources_are_not_compared() -> None:
    rates = replace(BEFORE, monotonic_s=101.0, engine=None).since(BEFORE)
    assert rates.net_sent_bytes_per_s is None


def test_two_readings_of_one_instant_have_no_rate() -> None:
    rates = BEFORE.since(BEFORE)
    assert (rates.cpu_percent, rates.host_cpu_percent, rates.net_sent_bytes_per_s) == (0.0, None, None)
