"""Carries plans out by netlink. Every verb is idempotent: making completes what is half there, deleting is silent."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TypeVar

from firkin.errors import HostError, KernelRefused
from firkin.host import netns, nft, tun
from firkin.host.netlink import Rtnl
from firkin.net import firewall
from firkin.net.plan import LinkPlan, NetworkPlan, check_subnet

# A bridge without a MAC of its own takes its lowest port's, and guests' neighbour tables go stale as ports change.
BRIDGE_MAC = bytes.fromhex("060000000001")

T = TypeVar("T")


def _inside(name: str | None, act: Callable[[Rtnl], T]) -> T:
    """Call `act` with a netlink socket in the plan's namespace."""

    def with_socket() -> T:
        with Rtnl() as rtnl:
            return act(rtnl)

    return with_socket() if name is None else netns.run_in(name, with_socket)


def create_network(plan: NetworkPlan) -> None:
    """Make namespace, bridge and firewall.

    Raises:
        InvalidSpec: the subnet collides with one that the host has.
        HostError: a foreign interface has the bridge's name, or the kernel refused.
    """
    if plan.netns is not None:
        netns.create(plan.netns)
    _inside(plan.netns, lambda rtnl: _build(rtnl, plan))


def _build(rtnl: Rtnl, plan: NetworkPlan) -> None:
    check_subnet(plan.gateway.network, [taken for taken in rtnl.addresses() if taken[0] != plan.bridge])
    _refuse_foreign(rtnl, plan.bridge, plan.name)
    rtnl.add(plan.bridge, "bridge", alias=_alias(plan.name), mac=BRIDGE_MAC)
    rtnl.add_address(plan.bridge, plan.gateway)
    rtnl.up(plan.bridge)
    if plan.host_address is not None:
        rtnl.add_address("lo", plan.host_address)
    else:
        nft.apply(firewall.up(plan))


def delete_network(plan: NetworkPlan) -> None:
    """Take down what `create_network` made, as far as it is there and ours."""
    if plan.netns is not None:
        netns.delete(plan.netns)
    else:
        _inside(None, lambda rtnl: _tear_down(rtnl, plan))


def _tear_down(rtnl: Rtnl, plan: NetworkPlan) -> None:
    # Adding first makes the deletion work whether or not the table was there.
    table = {"family": "inet", "name": firewall.table_of(plan)}
    nft.apply([{"add": {"table": table}}, *firewall.down(plan)])
    _delete_ours(rtnl, plan.bridge, plan.name)


def create_link(plan: LinkPlan, *, owner_uid: int | None = None) -> None:
    """Make a machine's tap and put it on the bridge, isolated from other machines' taps."""

    def build(rtnl: Rtnl) -> None:
        _refuse_foreign(rtnl, plan.tap, plan.network)
        tun.create(plan.tap, owner_uid=owner_uid)
        rtnl.mark(plan.tap, _alias(plan.network))
        rtnl.enslave(plan.tap, plan.bridge, isolated=True)
        rtnl.up(plan.tap)

    _inside(plan.netns, build)


def delete_link(plan: LinkPlan) -> None:
    """Remove a machine's tap; silent if it or its namespace is gone."""
    if plan.netns is None or netns.exists(plan.netns):
        _inside(plan.netns, lambda rtnl: _delete_tap(rtnl, plan))


def _delete_tap(rtnl: Rtnl, plan: LinkPlan) -> None:
    if plan.netns is not None:  # all that is in there is ours, marked or not
        rtnl.delete(plan.tap)
    else:
        _delete_ours(rtnl, plan.tap, plan.network)


def host_address(plan: NetworkPlan) -> IPv4Address:
    """The host's own address beside the bridge's. Sends nothing: connecting a UDP socket only asks for the route.

    Raises:
        KernelRefused: the host has no route to anywhere.
    """
    if plan.host_address is not None:
        return plan.host_address.ip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            raise KernelRefused("find the host's own address", error.errno or 0, hint="ip route") from error
        return IPv4Address(probe.getsockname()[0])


def _alias(network: str) -> str:
    return f"firkin:{network}"


def _refuse_foreign(rtnl: Rtnl, name: str, network: str) -> None:
    found = rtnl.link(name)
    if found is not None and found.alias != _alias(network):
        raise HostError(
            f"interface {name} exists and is not firkin's", hint=f"ip link delete {name}, if nothing needs it"
        )


def _delete_ours(rtnl: Rtnl, name: str, network: str) -> None:
    found = rtnl.link(name)
    if found is not None and found.alias == _alias(network):
        rtnl.delete(name)
