"""The one setting of the host that a network in `host` mode changes: whether its uplink forwards.

A packet is routed onward if the interface that it came in by may forward. So the bridge and the uplink are opened and
nothing else: `ip_forward`, the usual way, would make a router of every interface, and switching it off again would
close those that were open before. The bridge's own setting goes away with the bridge; the uplink's is put back.
"""

from __future__ import annotations

import msgspec

from firkin.errors import HostError
from firkin.host import netns, sysctl
from firkin.host.netlink import Rtnl
from firkin.net.plan import NetworkPlan, mark_of
from firkin.settings import NetworkMode

EVERYWHERE = "net/ipv4/ip_forward"


class SysctlChange(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, what it was and what it is to be. Made for `bridge`; `netns` None is the namespace we run in."""

    netns: str | None
    bridge: str
    key: str
    former: str
    value: str

    def apply(self) -> None:
        """Raises KernelRefused where this user may not."""
        netns.inside(self.netns, lambda: sysctl.write(self.key, self.value))

    def restore(self) -> None:
        """Put the former value back, unless somebody else needs or has chosen another by now."""
        if self.netns is None or netns.exists(self.netns):
            netns.inside(self.netns, self._restore_here)

    def _restore_here(self) -> None:
        if not sysctl.known(self.key) or sysctl.read(self.key) != self.value or sysctl.read(EVERYWHERE) == "1":
            return
        if not _other_networks(self.bridge):
            sysctl.write(self.key, self.former)


def network_changes(plan: NetworkPlan) -> list[SysctlChange]:
    """What `create_network` needs of the host beside its own devices: to be written down, then applied. Reads only.

    Raises:
        HostError: the host has no way out to share.
    """
    if plan.mode is NetworkMode.OWN:
        return []
    return netns.inside(plan.netns, lambda: _changes_here(plan))


def _changes_here(plan: NetworkPlan) -> list[SysctlChange]:
    with Rtnl() as rtnl:
        route = rtnl.default_route()
    if route is None:
        raise HostError("this host has no default route for guests to use", hint="--network-mode own needs none")
    key = f"net/ipv4/conf/{route.interface}/forwarding"
    now = sysctl.read(key)
    # A second network finds the uplink opened by the first; whichever goes last closes it.
    inherited = now == "1" and sysctl.read(EVERYWHERE) == "0" and _other_networks(plan.bridge)
    if now == "1" and not inherited:
        return []
    return [SysctlChange(netns=plan.netns, bridge=plan.bridge, key=key, former="0", value="1")]


def _other_networks(bridge: str) -> bool:
    with Rtnl() as rtnl:
        links = rtnl.links()
    return any(link.kind == "bridge" and link.alias.startswith(mark_of("")) and link.name != bridge for link in links)
