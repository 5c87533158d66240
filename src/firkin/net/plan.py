"""Names, addresses and MACs of networks and links. Pure: the same question always has the same answer.

Plans are written to the journal before they are carried out, so that a later process can take them back. Addresses are
kept as text, which is what JSON has, and read as values from `ipaddress`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec

from firkin.errors import InvalidSpec, UsageError
from firkin.settings import NetworkMode
from firkin.spec import NAME

DEFAULT_SUBNET = IPv4Network("192.168.5.0/24")
# TEST-NET-2 (RFC 5737) is nobody's: in `own` mode it plays the host's address beyond the guests' subnet.
UPLINK = "uplink"
UPLINK_ADDRESS = IPv4Interface("198.51.100.1/24")
FIRST_GUEST = 3  # .0 is the network, .1 the bridge; .2 stays free, as in Firecracker's tutorial
SMALLEST_PREFIX = 29  # bridge, the free one and four guests
BRIDGE_PORTS = 1023  # BR_MAX_PORTS
UNUSABLE = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge with a subnet. `netns` None is the namespace we run in; `mark` says on each device whose it is."""

    name: str
    mode: NetworkMode
    netns: str | None
    bridge: str
    tap_prefix: str
    mark: str
    gateway_text: str = msgspec.field(name="gateway")
    host_address_text: str | None = msgspec.field(name="host_address", default=None)
    isolated: bool = True

    @property
    def gateway(self) -> IPv4Interface:
        """The bridge's address."""
        return IPv4Interface(self.gateway_text)

    @property
    def host_address(self) -> IPv4Interface | None:
        """What stands for the host beyond the subnet; None in `host` mode, where only the host itself knows."""
        return None if self.host_address_text is None else IPv4Interface(self.host_address_text)


class LinkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One machine's tap and what its guest may call itself."""

    netns: str | None
    bridge: str
    tap: str
    mark: str
    guest_text: str = msgspec.field(name="guest")
    gateway_text: str = msgspec.field(name="gateway")
    mac: str
    isolated: bool = True

    @property
    def guest(self) -> IPv4Interface:
        return IPv4Interface(self.guest_text)

    @property
    def gateway(self) -> IPv4Address:
        return IPv4Address(self.gateway_text)


def plan_network(
    name: str, *, mode: NetworkMode, subnet: IPv4Network = DEFAULT_SUBNET, tag: str = "", isolated: bool = True
) -> NetworkPlan:
    """Where a network lives. `tag` tells the networks of several homes apart.

    Raises:
        InvalidSpec: the name or the subnet cannot be used.
    """
    if not NAME.fullmatch(name):
        raise InvalidSpec(f"network: {name!r} is not a name", hint="use lower-case letters, digits and dashes")
    own = mode is NetworkMode.OWN
    check_subnet(subnet, [(UPLINK, UPLINK_ADDRESS)] if own else [])
    stem = "fk" + hashlib.sha256(f"{tag}/{name}".encode()).hexdigest()[:6]
    return NetworkPlan(
        name=name,
        mode=mode,
        netns="-".join(filter(None, ("firkin", name, tag))) if own else None,
        bridge="firkin0" if own else f"{stem}-{name[:6]}",  # IFNAMSIZ leaves 15 characters
        tap_prefix="tap" if own else f"{stem}t",
        mark=f"firkin:{name}" + (f"@{tag}" if tag else ""),
        gateway_text=f"{subnet[1]}/{subnet.prefixlen}",
        host_address_text=str(UPLINK_ADDRESS) if own else None,
        isolated=isolated,
    )


def plan_link(network: NetworkPlan, slot: int) -> LinkPlan:
    """The link of the machine in `slot`, counted from 0.

    Raises:
        UsageError: the subnet or the bridge has no room for that many machines.
    """
    subnet = network.gateway.network
    room = min(subnet.num_addresses - 1 - FIRST_GUEST, BRIDGE_PORTS)
    if slot >= room:
        raise UsageError(
            f"network {network.name!r} is full: {subnet} has room for {room} machines",
            hint="firkin ls, then firkin rm what is not needed; or use another network",
        )
    guest = subnet[FIRST_GUEST + slot]
    return LinkPlan(
        netns=network.netns,
        bridge=network.bridge,
        tap=f"{network.tap_prefix}{slot}",
        mark=network.mark,
        guest_text=f"{guest}/{subnet.prefixlen}",
        gateway_text=str(network.gateway.ip),
        mac=mac_of(guest),
        isolated=network.isolated,
    )


def mac_of(address: IPv4Address) -> str:
    """The MAC that Firecracker's own tools give an address: 06:00, then its four bytes."""
    return bytes((6, 0, *address.packed)).hex(":")


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


def check_subnet(subnet: IPv4Network, existing: Iterable[tuple[str, IPv4Interface]]) -> None:
    """Refuse a subnet that cannot hold machines, or that overlaps an address of this namespace.

    Raises:
        InvalidSpec: naming what is in the way.
    """
    if subnet.prefixlen > SMALLEST_PREFIX:
        raise InvalidSpec(f"subnet: {subnet} has no room for machines", hint=f"--subnet {subnet[0]}/24")
    for unusable in UNUSABLE:
        if subnet.overlaps(unusable):
            raise InvalidSpec(f"subnet: {subnet} overlaps {unusable}, which is reserved", hint=_another(subnet))
    for interface, address in existing:
        if subnet.overlaps(address.network):
            raise InvalidSpec(
                f"subnet: {subnet} overlaps {address} of interface {interface!r}", hint=_another(address.network)
            )


def _another(taken: IPv4Network) -> str:
    candidates = (DEFAULT_SUBNET, IPv4Network("192.168.205.0/24"), IPv4Network("10.205.0.0/24"))
    free = next((network for network in candidates if not network.overlaps(taken)), DEFAULT_SUBNET)
    return f"choose another: --subnet {free}"
