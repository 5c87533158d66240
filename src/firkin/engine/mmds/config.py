"""What PUT /mmds/config may say. Pure."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from firkin.engine.faults import Area, Fault
from firkin.fcapi.mmds import DEFAULT_ADDRESS, MmdsConfig

_NOT_LINK_LOCAL = "The MMDS IPv4 address is not link local."
_NO_INTERFACE = "The list of network interface IDs that allow forwarding MMDS requests is empty."
_UNKNOWN_INTERFACE = (
    "The list of network interface IDs provided contains at least one ID that does not correspond to any existing "
    "network interface."
)


def checked(config: MmdsConfig, interface_ids: Collection[str]) -> MmdsConfig:
    """The configuration with its address, and its interfaces in the order of `interface_ids`.

    Raises:
        Fault: it cannot be.
    """
    address = DEFAULT_ADDRESS if config.ipv4_address is None else config.ipv4_address
    if not _is_link_local(address):
        raise Fault(_NOT_LINK_LOCAL, Area.MMDS_CONFIG)
    if not config.network_interfaces:
        raise Fault(_NO_INTERFACE, Area.MMDS_CONFIG)
    if not set(config.network_interfaces) <= set(interface_ids):
        raise Fault(_UNKNOWN_INTERFACE, Area.MMDS_CONFIG)
    chosen = tuple(each for each in interface_ids if each in config.network_interfaces)
    return msgspec.structs.replace(config, ipv4_address=address, network_interfaces=chosen)


def _is_link_local(address: str) -> bool:
    """RFC 3927: 169.254/16 without its first and last 256 addresses."""
    first, second, third, _ = octets(address)
    return (first, second) == (169, 254) and third not in (0, 255)


def octets(address: str) -> bytes:
    """The four bytes of an address. Raises: Fault, for what is none."""
    parts = address.split(".")
    if len(parts) != 4 or not all(_is_octet(part) for part in parts):
        what = "An error occurred when deserializing the json body of a request: invalid IPv4 address syntax."
        raise Fault(what)
    return bytes(int(part) for part in parts)


def _is_octet(text: str) -> bool:
    plain = text.isascii() and text.isdigit() and len(text) <= 3 and (text == "0" or text[0] != "0")
    return plain and int(text) <= 255
