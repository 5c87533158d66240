"""Names, addresses and MACs of a network and of the machines on it. Pure: nothing here touches the host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import msgspec

from firkin.errors import InvalidSpec, UsageError
from firkin.settings import NetworkMode
from firkin.spec import NAME

DEFAULT_SUBNET = IPv4Network("192.168.5.0/24")
FIRST_GUEST = 3  # .1 is the bridge; .2 stays free, as in Firecracker's tutorial
SMALLEST_PREFIX = 29
BRIDGE_PORTS = 1023  # BR_MAX_PORTS
UNUSABLE = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
# A namespace of firkin's own plays the host: this is its address beside the bridge's, on its loopback
# (TEST-NET-2, RFC 5737), reached from a guest only by routing.
HOST_ADDRESS = IPv4Interface("198.51.100.1/32")


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a network is. `netns` is None in the root namespace; `host_address` is None where the host's is found."""

    name: str
    mode: NetworkMode
    netns: str | None
    bridge: str
    tap_prefix: str
    gateway: IPv4Interface
    host_address: IPv4Interface | None
    isolated: bool = True


class LinkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One machine's place on a network."""

    network: str
    netns: str | None
    bridge: str
    tap: str
    mac: str
    guest: IPv4Interface
    gateway: IPv4Address
    isolated: bool = True


def plan_network(
    name: str, *, mode: NetworkMode, subnet: IPv4Network = DEFAULT_SUBNET, tag: str = "", isolated: bool = True
) -> NetworkPlan:
    """Place a network. `tag` tells the host objects of several homes apart.

    Raises:
        InvalidSpec: the name or the subnet cannot be used.
    """
    if not NAME.fullmatch(name):
        raise InvalidSpec(f"network: {name!r} is not a name", hint="use lower-case letters, digits and dashes")
    own = mode is NetworkMode.OWN
    check_subnet(subnet, [("lo", HOST_ADDRESS)] if own else [])
    bridge = "firkin0" if own or (name == "default" and not tag) else f"fk-{_digest(name, tag)}"
    return NetworkPlan(
        name=name,
        mode=mode,
        netns="-".join(part for part in ("firkin", name, tag) if part) if own else None,
        bridge=bridge,
        tap_prefix="fktap" if own else f"{bridge}t",
        gateway=IPv4Interface((subnet[1], subnet.prefixlen)),
        host_address=HOST_ADDRESS if own else None,
        isolated=isolated,
    )


def plan_link(network: NetworkPlan, slot: int) -> LinkPlan:
    """Name and addresses for the machine in `slot`, counted from 0.

    Raises:
        UsageError: the subnet or the bridge has no room for that many machines.
    """
    subnet = network.gateway.network
    room = min(subnet.num_addresses - 1 - FIRST_GUEST, BRIDGE_PORTS)
    if slot >= room:
        raise UsageError(
            f"network {network.name!r} is full: {subnet} has room for {room} machines",
            hint="firkin ls; remove a machine",
        )
    address = subnet[FIRST_GUEST + slot]
    return LinkPlan(
        network=network.name,
        netns=network.netns,
        bridge=network.bridge,
        tap=f"{network.tap_prefix}{slot}",
        mac=mac_of(address),
        guest=IPv4Interface((address, subnet.prefixlen)),
        gateway=network.gateway.ip,
        isolated=network.isolated,
    )


def mac_of(address: IPv4Address) -> str:
    """The MAC that Firecracker's own tools give an address: 06:00, then its four bytes."""
    return bytes((6, 0, *address.packed)).hex(":")


def mark_of(network: str) -> str:
    """What the alias of every device of this network says."""
    return f"firkin:{network}"


def parse_subnet(text: str) -> IPv4Network:
    """A subnet as a person writes it.

    Raises:
        InvalidSpec: no subnet, or an address within one.
    """
    try:
        return IPv4Network(text)
    except ValueError as error:
        try:
            meant = f"--subnet {IPv4Network(text, strict=False)}"
        except ValueError:
            meant = f"--subnet {DEFAULT_SUBNET}"
        raise InvalidSpec(f"subnet: {error}", hint=meant) from error


def check_subnet(subnet: IPv4Network, taken: Iterable[tuple[str, IPv4Interface]]) -> None:
    """Refuse a subnet that cannot hold machines, or that overlaps one the host has.

    Raises:
        InvalidSpec: with the interface and address that collide.
    """
    if subnet.prefixlen > SMALLEST_PREFIX:
        raise InvalidSpec(f"subnet {subnet}: no room for machines", hint=f"take a /{SMALLEST_PREFIX} or larger")
    for unusable in UNUSABLE:
        if subnet.overlaps(unusable):
            raise InvalidSpec(f"subnet {subnet}: overlaps {unusable}, which is reserved", hint=_another(subnet))
    for interface, address in taken:
        if subnet.overlaps(address.network):
            raise InvalidSpec(
                f"subnet {subnet}: collides with {address} on {interface}", hint=_another(address.network)
            )


def _another(taken: IPv4Network) -> str:
    candidates = (DEFAULT_SUBNET, IPv4Network("192.168.205.0/24"), IPv4Network("10.205.0.0/24"))
    free = next((network for network in candidates if not network.overlaps(taken)), DEFAULT_SUBNET)
    return f"choose another, as --subnet {free}; --network-mode own needs no free one"


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
