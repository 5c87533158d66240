"""What the metadata service counts, by the names of the `mmds` group of the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Metrics:
    """Totals since the start, over all interfaces."""

    rx_accepted: int = 0  # frames that were ours
    rx_accepted_err: int = 0  # of these: malformed, or to no port of ours
    rx_accepted_unusual: int = 0  # of these: not TCP, or out of place in their connection
    rx_bad_eth: int = 0  # too short for an Ethernet header
    rx_invalid_token: int = 0
    rx_no_token: int = 0
    rx_count: int = 0  # segments that were taken
    tx_bytes: int = 0
    tx_count: int = 0  # frames made
    tx_errors: int = 0  # answers that had to be dropped, since too many were waiting
    tx_frames: int = 0  # frames handed over to the interface
    connections_created: int = 0
    connections_destroyed: int = 0
