"""Plan → bridge, tap and rules, and back.

Every function may be called again: creating completes what is there, deleting passes over what is not. Devices that do
not carry our mark are never changed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from firkin.errors import HostError, KernelRefused, NameTaken, NotFound
from firkin.host import netns, nft, sysctl, tun
from firkin.host.netlink import Rtnl
from firkin.host.nlwire import Link
from firkin.host.wait import wait_until
from firkin.net import firewall
from firkin.net.plan import LinkPlan, NetworkPlan, check_subnet, mac_of, mark_of
from firkin.settings import NetworkMode

MARKED_WITHIN_S = 0.2


def create_network(plan: NetworkPlan) -> None:
    """Namespace, rules, bridge with its address.

    Raises:
        InvalidSpec: the subnet overlaps an address of the host.
        NameTaken: the namespace or the bridge is somebody else's.
        KernelRefused, RulesRefused: not allowed, or not supported by this kernel.
    """
    if plan.netns is not None:
        netns.create(plan.netns)
    netns.inside(plan.netns, lambda: _create_here(plan))


def is_up(plan: NetworkPlan) -> bool:
    """Whether `create_network` has nothing left to do."""
    if plan.netns is not None and not netns.exists(plan.netns):
        return False
    return netns.inside(plan.netns, lambda: _is_up_here(plan))


def delete_network(plan: NetworkPlan) -> None:
    """Everything that `create_network` made. Taps on the bridge must be gone in `host` mode; in `own` they go too."""
    if plan.netns is None:
        _delete_here(plan)
    elif netns.exists(plan.netns) and _is_our_namespace(plan):
        netns.delete(plan.netns)


def create_link(plan: LinkPlan, *, owner_uid: int | None = None) -> None:
    """A persistent tap on the network's bridge, up, that only `owner_uid` and root may open (None: only root).

    Raises:
        HostError: the network is not there.
        NameTaken: a device of that name is somebody else's.
        KernelRefused, RulesRefused: not allowed, or not supported by this kernel.
    """

    def act() -> None:
        with Rtnl() as rtnl:
            _ensure_tap(rtnl, plan, owner_uid)
        attach(plan)

    netns.inside(plan.netns, act)


def delete_link(plan: LinkPlan) -> None:
    """The tap and its place in the rules."""

    def act() -> None:
        if firewall.tables(plan.bridge)[1] in nft.tables():
            nft.apply(firewall.dismiss(plan))
        with Rtnl() as rtnl, _absence_is_fine():
            found = rtnl.link(plan.tap)
            if found is not None and found.alias == mark_of(plan.network):
                rtnl.delete(plan.tap)

    with _absence_is_fine():
        netns.inside(plan.netns, act)


def attach(plan: LinkPlan) -> None:
    """Make the device of the plan's name, in the current namespace, a port that may be its guest and nothing else."""
    nft.apply(firewall.admit(plan))
    _silence_ipv6(plan.tap)
    with Rtnl() as rtnl:
        rtnl.change(plan.tap, master=plan.bridge)
        rtnl.isolate(plan.tap, isolated=plan.isolated)
        rtnl.change(plan.tap, up=True)


def host_address(plan: NetworkPlan) -> IPv4Address:
    """The host's own address beside the bridge's, read from the routing table.

    Raises:
        KernelRefused: the host has no route to anywhere.
    """
    if plan.host_address is not None:
        return plan.host_address.ip
    with Rtnl() as rtnl:
        route = rtnl.default_route()
    if route is None or route.source is None:
        raise KernelRefused("cannot find the host's own address", errno.ENETUNREACH, hint="ip route")
    return route.source.ip


def _create_here(plan: NetworkPlan) -> None:
    with Rtnl() as rtnl:
        _refuse_foreign(rtnl, plan)
        nft.apply(firewall.raise_network(plan))
        _ensure_bridge(rtnl, plan.bridge, mac_of(plan.gateway.ip), mark_of(plan.name))
        rtnl.add_address(plan.bridge, plan.gateway)
        rtnl.change(plan.bridge, up=True)
        if plan.host_address is not None:
            rtnl.add_address("lo", plan.host_address)
            rtnl.change("lo", up=True)
    sysctl.write(_forwarding(plan), "1")  # last: says that all of it is there


def _is_up_here(plan: NetworkPlan) -> bool:
    key = _forwarding(plan)
    if not sysctl.known(key) or sysctl.read(key) != "1" or not nft.tables().issuperset(firewall.tables(plan.bridge)):
        return False
    with Rtnl() as rtnl:
        found = rtnl.link(plan.bridge)
    return found is not None and found.up and found.alias == mark_of(plan.name)


def _forwarding(plan: NetworkPlan) -> str:
    return f"net/ipv4/{'ip_forward' if plan.mode is NetworkMode.OWN else f'conf/{plan.bridge}/forwarding'}"


def _delete_here(plan: NetworkPlan) -> None:
    with Rtnl() as rtnl:
        found = rtnl.link(plan.bridge)
        if found is not None and not _is_our_bridge(found, plan):
            return
        nft.apply(firewall.raze_network(plan.bridge))
        with _absence_is_fine():
            rtnl.delete(plan.bridge)


def _refuse_foreign(rtnl: Rtnl, plan: NetworkPlan) -> None:
    links = rtnl.links()
    found = next((link for link in links if link.name == plan.bridge), None)
    if found is not None and not _is_our_bridge(found, plan):
        raise _taken(found, mark_of(plan.name))
    if found is None and plan.netns is not None and _in_use(links):
        raise NameTaken(f"network namespace {plan.netns!r} is in use by others", hint=f"ip -n {plan.netns} link")
    if plan.mode is NetworkMode.HOST:
        others = [(name, address) for name, address in rtnl.addresses() if name != plan.bridge]
        check_subnet(plan.gateway.network, others)


def _is_our_bridge(link: Link, plan: NetworkPlan) -> bool:
    # Whoever dies between making a bridge and marking it leaves one with our MAC and no mark.
    unmarked = not link.alias and link.mac == mac_of(plan.gateway.ip)
    return link.kind == "bridge" and (link.alias == mark_of(plan.name) or unmarked)


def _is_our_namespace(plan: NetworkPlan) -> bool:
    assert plan.netns is not None
    try:
        links = netns.run_in(plan.netns, _links_here)
    except NotFound:
        return False
    return not _in_use(links) or any(_is_our_bridge(link, plan) for link in links if link.name == plan.bridge)


def _links_here() -> list[Link]:
    with Rtnl() as rtnl:
        return rtnl.links()


def _in_use(links: list[Link]) -> bool:
    return any(link.up for link in links if link.name != "lo")


def _ensure_bridge(rtnl: Rtnl, name: str, mac: str, mark: str) -> None:
    if rtnl.link(name) is None:
        try:
            rtnl.add_bridge(name, mac)
        except KernelRefused as error:
            if error.errno != errno.EEXIST:  # a second process, doing the same
                raise
    rtnl.change(name, alias=mark)
    _silence_ipv6(name)


def _ensure_tap(rtnl: Rtnl, plan: LinkPlan, owner_uid: int | None) -> None:
    bridge, found = rtnl.link(plan.bridge), rtnl.link(plan.tap)
    if bridge is None or bridge.alias != mark_of(plan.network):
        raise HostError(f"network bridge {plan.bridge!r} is not there", hint="firkin ls")
    if found is None:
        _make_tap(rtnl, plan, owner_uid)
    elif not _is_marked_soon(rtnl, plan):
        raise _taken(found, mark_of(plan.network))


def _make_tap(rtnl: Rtnl, plan: LinkPlan, owner_uid: int | None) -> None:
    """Marked before it is made to last: a tap of ours without its mark cannot be left behind."""
    try:
        with tun.attached(plan.tap) as fd:
            rtnl.change(plan.tap, alias=mark_of(plan.network))
            tun.persist(fd, owner_uid=owner_uid)
    except KernelRefused as error:
        if error.errno != errno.EBUSY or not _is_marked_soon(rtnl, plan):
            raise


def _is_marked_soon(rtnl: Rtnl, plan: LinkPlan) -> bool:
    """Whether the tap is ours. A second process, making the same one, may be about to mark it."""

    def is_marked() -> bool:
        found = rtnl.link(plan.tap)
        return found is not None and found.alias == mark_of(plan.network)

    return wait_until(is_marked, timeout_s=MARKED_WITHIN_S, interval_s=0.001)


def _taken(link: Link, mark: str) -> NameTaken:
    whose = f"marked {link.alias!r}" if link.alias else "without a mark"
    return NameTaken(f"device {link.name!r} exists {whose}, it is not {mark!r}", hint=f"ip -d link show {link.name}")


def _silence_ipv6(name: str) -> None:
    """Guests have no IPv6: no solicitations to them, and no way for them to reach the host by it."""
    key = f"net/ipv6/conf/{name}/disable_ipv6"
    if sysctl.known(key):
        sysctl.write(key, "1")


@contextmanager
def _absence_is_fine() -> Iterator[None]:
    try:
        yield
    except NotFound:
        return
    except KernelRefused as error:
        if error.errno != errno.ENODEV:
            raise
