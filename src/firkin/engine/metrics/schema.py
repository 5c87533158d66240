"""Every group and field of Firecracker v1.16.1's metrics: its readers refuse a line that has one more or less."""

from __future__ import annotations

from collections.abc import Mapping

_AGGREGATE = ("min_us", "max_us", "sum_us")

BLOCK = (
    *("activate_fails", "cfg_fails", "no_avail_buffer", "event_fails", "execute_fails", "invalid_reqs_count"),
    *("flush_count", "queue_event_count", "rate_limiter_event_count", "update_count", "update_fails", "read_bytes"),
    *("write_bytes", "read_count", "write_count", "read_agg", "write_agg", "rate_limiter_throttled_events"),
    *("io_engine_throttled_events", "remaining_reqs_count"),
)
NET = (
    *("activate_fails", "cfg_fails", "mac_address_updates", "no_rx_avail_buffer", "no_tx_avail_buffer", "event_fails"),
    *("rx_queue_event_count", "rx_event_rate_limiter_count", "rx_rate_limiter_throttled", "rx_tap_event_count"),
    *("rx_bytes_count", "rx_packets_count", "rx_fails", "rx_count", "tap_read_fails", "tap_write_fails"),
    *("tap_write_agg", "tx_bytes_count", "tx_malformed_frames", "tx_fails", "tx_count", "tx_packets_count"),
    *("tx_queue_event_count", "tx_rate_limiter_event_count", "tx_rate_limiter_throttled", "tx_spoofed_mac_count"),
    "tx_remaining_reqs_count",
)
_PUT = (
    *("actions", "boot_source", "drive", "logger", "machine_cfg", "cpu_cfg", "metrics", "network", "mmds", "vsock"),
    *("pmem", "serial", "hotplug_memory"),
)
_PATCH = ("drive", "network", "machine_cfg", "mmds", "hotplug_memory", "pmem")
_EXITS = ("exit_io_in", "exit_io_out", "exit_mmio_read", "exit_mmio_write")
_SLOW = ("full_create_snapshot", "diff_create_snapshot", "load_snapshot", "pause_vm", "resume_vm")


def _counted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}_{what}" for name in names for what in ("count", "fails"))


GROUPS: Mapping[str, tuple[str, ...]] = {
    "api_server": ("process_startup_time_us", "process_startup_time_cpu_us"),
    "balloon": (
        *("activate_fails", "inflate_count", "stats_updates_count", "stats_update_fails", "deflate_count"),
        *("event_fails", "free_page_report_count", "free_page_report_freed", "free_page_report_fails"),
        *("free_page_hint_count", "free_page_hint_freed", "free_page_hint_fails"),
    ),
    "block": BLOCK,
    "deprecated_api": ("deprecated_http_api_calls",),
    "get_api_requests": (
        *("instance_info_count", "machine_cfg_count", "mmds_count", "vmm_version_count", "hotplug_memory_count"),
    ),
    "i8042": ("error_count", "missed_read_count", "missed_write_count", "read_count", "reset_count", "write_count"),
    "interrupts": ("triggers", "config_updates"),
    "latencies_us": tuple(prefix + name for prefix in ("", "vmm_") for name in _SLOW),
    "logger": ("missed_metrics_count", "metrics_fails", "missed_log_count", "rate_limited_log_count"),
    "memory_hotplug": (
        *("activate_fails", "queue_event_fails", "queue_event_count", "plug_agg", "plug_count", "plug_bytes"),
        *("plug_fails", "unplug_agg", "unplug_count", "unplug_bytes", "unplug_fails", "unplug_discard_fails"),
        *("state_agg", "state_count", "state_fails", "unplug_all_agg", "unplug_all_count", "unplug_all_fails"),
    ),
    "mmds": (
        *("rx_accepted", "rx_accepted_err", "rx_accepted_unusual", "rx_bad_eth", "rx_invalid_token", "rx_no_token"),
        *("rx_count", "tx_bytes", "tx_count", "tx_errors", "tx_frames", "connections_created"),
        "connections_destroyed",
    ),
    "net": NET,
    "patch_api_requests": _counted(_PATCH),
    "pmem": (
        *("activate_fails", "cfg_fails", "event_fails", "queue_event_count", "rate_limiter_throttled_events"),
        "rate_limiter_event_count",
    ),
    "put_api_requests": _counted(_PUT),
    "seccomp": ("num_faults",),
    "vcpu": (*_EXITS, "failures", "kvmclock_ctrl_fails", *(f"{name}_agg" for name in _EXITS)),
    "vmm": ("panic_count",),
    "uart": (
        *("error_count", "flush_count", "missed_read_count", "missed_write_count", "read_count", "write_count"),
        "rate_limiter_dropped_bytes",
    ),
    "signals": ("sigbus", "sigsegv", "sigxfsz", "sigxcpu", "sigpipe", "sighup", "sigill"),
    "vsock": (
        *("activate_fails", "cfg_fails", "rx_queue_event_fails", "tx_queue_event_fails", "ev_queue_event_fails"),
        *("muxer_event_fails", "conn_event_fails", "rx_queue_event_count", "tx_queue_event_count"),
        *("rx_bytes_count", "tx_bytes_count", "rx_packets_count", "tx_packets_count", "conns_added", "conns_killed"),
        *("conns_removed", "killq_resync", "tx_flush_fails", "tx_write_fails", "rx_read_fails"),
    ),
    "entropy": (
        *("activate_fails", "entropy_event_fails", "entropy_event_count", "entropy_bytes", "host_rng_fails"),
        *("entropy_rate_limiter_throttled", "rate_limiter_event_count"),
    ),
}

_STORED_GROUPS = {"api_server", "latencies_us", "seccomp", "vmm"}


def fields_of(group: str) -> tuple[str, ...]:
    """Of a group, or of the group of one device: `block_ID`, `net_ID`."""
    return GROUPS[group] if group in GROUPS else GROUPS[group.partition("_")[0]]


def is_stored(group: str, field: str) -> bool:
    """Whether a field shows its value as it is; all others show what was added since the last line."""
    return group in _STORED_GROUPS or (group == "signals" and field != "sigpipe")


def zero(field: str) -> int | dict[str, int]:
    """A field of which nothing is known: a number, or how long something took at least, at most and together."""
    return dict.fromkeys(_AGGREGATE, 0) if field.endswith("_agg") else 0
