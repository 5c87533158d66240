"""What an interface counts, under Firecracker's names of metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Totals since the interface was made. `rx` is towards the guest."""

    activate_fails: int = 0
    cfg_fails: int = 0
    no_rx_avail_buffer: int = 0
    event_fails: int = 0
    rx_queue_event_count: int = 0
    rx_event_rate_limiter_count: int = 0
    rx_rate_limiter_throttled: int = 0
    rx_tap_event_count: int = 0
    rx_bytes_count: int = 0
    rx_packets_count: int = 0
    rx_fails: int = 0
    rx_count: int = 0
    tap_read_fails: int = 0
    tap_write_fails: int = 0
    tx_bytes_count: int = 0
    tx_malformed_frames: int = 0
    tx_fails: int = 0
    tx_count: int = 0
    tx_packets_count: int = 0
    tx_queue_event_count: int = 0
    tx_rate_limiter_event_count: int = 0
    tx_rate_limiter_throttled: int = 0
    tx_spoofed_mac_count: int = 0
    tx_remaining_reqs_count: int = 0
