"""/network-interfaces/{iface_id}: a tap device of the host as a NIC of the guest."""

from __future__ import annotations

from typing import ClassVar

from firkin.fcapi.limits import RateLimiter
from firkin.fcapi.texts import MacAddress
from firkin.fcapi.wire import U16, Wire


class NetworkInterface(Wire, frozen=True, kw_only=True):
    """PUT /network-interfaces/{iface_id}. The tap is opened when the call comes."""

    rust: ClassVar[str] = "NetworkInterfaceConfig"

    iface_id: str
    host_dev_name: str
    guest_mac: MacAddress | None = None
    mtu: U16 | None = None
    rx_rate_limiter: RateLimiter | None = None
    tx_rate_limiter: RateLimiter | None = None


class NetworkInterfacePatch(Wire, frozen=True, kw_only=True):
    """PATCH /network-interfaces/{iface_id}: only the buckets given are replaced."""

    rust: ClassVar[str] = "NetworkInterfaceUpdateConfig"

    iface_id: str
    rx_rate_limiter: RateLimiter | None = None
    tx_rate_limiter: RateLimiter | None = None
