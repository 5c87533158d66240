"""What passed through the guest's taps, by the kernel's own count."""

from __future__ import annotations

from collections.abc import Mapping

Counts = Mapping[str, Mapping[str, int]]

_TABLE = "/proc/self/net/dev"
# Columns of the table. What QEMU writes into a tap the host receives: for the guest it is sent.
_COLUMNS = {"tx_bytes_count": 0, "tx_packets_count": 1, "rx_bytes_count": 8, "rx_packets_count": 9}


def read(table: str = _TABLE) -> dict[str, dict[str, int]]:
    """By device name, of this network namespace; nothing where /proc is not to be had."""
    try:
        with open(table, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - pathlib costs start-up time
            return parse(file.read())
    except OSError:
        return {}


def parse(table: str) -> dict[str, dict[str, int]]:
    found = {}
    for line in table.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        columns = numbers.split()
        counts = {field: int(columns[at]) for field, at in _COLUMNS.items()}
        # A frame is a request: QEMU tells no more of its queues.
        found[name.strip()] = {**counts, "rx_count": counts["rx_packets_count"], "tx_count": counts["tx_packets_count"]}
    return found


def since(before: Counts, name: str, now: Counts) -> dict[str, int]:
    """What a tap carried since `before`: it may have had another guest."""
    earlier = before.get(name, {})
    return {field: value - earlier.get(field, 0) for field, value in now.get(name, {}).items()}
