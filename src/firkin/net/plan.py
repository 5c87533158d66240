"""Names, addresses and MACs of a network and of the machines on it. Pure: nothing here touches the host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import msgspec

from firkin.errors import InvalidSpec, UsageError
from firkin.settings import NetworkMode

DEFAULT_SUBNET = IPv4Network("192.168.5.0/24")
FIRST_GUEST = 3  # .1 is the bridge; .2 stays free, as in Firecracker's tutorial
SMALLEST_PREFIX = 29
IFNAME_MAX = 15
# A namespace of firkin's own plays the host: this is its address beside the bridge's, on its loopback
# (TEST-NET-2, RFC 5737), reached from a guest only by routing.
HOST_ADDRESS = IPv4Interface("198.51.100.1/32")


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a network is. `netns` is None in the root namespace; `host_address` is None where the host's is found."""

    name: str
    mode: NetworkMode
    netns: str | None
    bridge: str
    gateway: IPv4Interface
    host_address: IPv4Interface | None


class LinkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One machine's place on a network."""

    network: str
    netns: str | None
    bridge: str
    tap: str
    mac: str
    guest: IPv4Interface
    gateway: IPv4Address


def plan_network(name: str, *, mode: NetworkMode, subnet: IPv4Network = DEFAULT_SUBNET, tag: str = "") -> NetworkPlan:
    """Place a network. `tag` tells the host objects of several homes apart."""
    gateway = IPv4Interface((subnet[1], subnet.prefixlen))
    if mode is NetworkMode.HOST:
        bridge = "firkin0" if name == "default" and not tag else f"fk-{_digest(name, tag)}"
        return NetworkPlan(name=name, mode=mode, netns=None, bridge=bridge, gateway=gateway, host_address=None)
    netns = "-".join(part for part in ("firkin", name, tag) if part)
    return NetworkPlan(name=name, mode=mode, netns=netns, bridge="firkin0", gateway=gateway, host_address=HOST_ADDRESS)


def plan_link(network: NetworkPlan, slot: int) -> LinkPlan:
    """Name and addresses for the machine in `slot`, counted from 0.

    Raises:
        UsageError: the subnet has no address left.
    """
    subnet = network.gateway.network
    number = FIRST_GUEST + slot
    if number >= subnet.num_addresses - 1:
        raise UsageError(f"network {network.name!r}: {subnet} is full", hint="firkin ls; remove a machine")
    address = subnet[number]
    prefix = "fktap" if network.netns else f"{network.bridge[:10]}t"
    return LinkPlan(
        network=network.name,
        netns=network.netns,
        bridge=network.bridge,
        tap=f"{prefix}{slot}"[:IFNAME_MAX],
        mac="06:00:" + ":".join(f"{byte:02x}" for byte in address.packed),
        guest=IPv4Interface((address, subnet.prefixlen)),
        gateway=network.gateway.ip,
    )


def check_subnet(subnet: IPv4Network, taken: Iterable[tuple[str, IPv4Interface]]) -> None:
    """Refuse a subnet that is too small or overlaps one the host has.

    Raises:
        InvalidSpec: with the interface and address that collide.
    """
    if subnet.prefixlen > SMALLEST_PREFIX:
        raise InvalidSpec(f"subnet {subnet}: no room for machines", hint=f"take a /{SMALLEST_PREFIX} or larger")
    for interface, address in taken:
        if subnet.overlaps(address.network):
            raise InvalidSpec(
                f"subnet {subnet}: collides with {address} on {interface}",
                hint="--network-mode own needs no free subnet",
            )


def encode_address(value: Any) -> str:
    """How addresses are written as JSON (msgspec's enc_hook)."""
    if isinstance(value, IPv4Address | IPv4Interface):
        return str(value)
    raise NotImplementedError


def decode_address(kind: type[Any], value: Any) -> Any:
    """And read back (msgspec's dec_hook)."""
    try:
        return kind(value)
    except AddressValueError as error:
        raise ValueError(str(error)) from error


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:6]
