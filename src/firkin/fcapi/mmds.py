"""/mmds and /mmds/config: metadata that the guest reads over HTTP from a link-local address."""

from __future__ import annotations

from enum import StrEnum

from firkin.fcapi.texts import Ipv4Address
from firkin.fcapi.wire import Wire

DEFAULT_ADDRESS = "169.254.169.254"


class MmdsVersion(StrEnum):
    """V1 answers anybody in the guest, V2 only those who fetched a session token."""

    V1 = "V1"
    V2 = "V2"


class MmdsConfig(Wire, frozen=True, kw_only=True):
    """PUT /mmds/config. `network_interfaces` are the ids of those that the service answers on."""

    version: MmdsVersion = MmdsVersion.V1
    imds_compat: bool = False
    network_interfaces: tuple[str, ...]
    ipv4_address: Ipv4Address | None = None
