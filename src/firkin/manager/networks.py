"""Networks come up with their first machine and go down with their last."""

from __future__ import annotations

from firkin.host import sysctl
from firkin.manager.changes import LinkUp, NetworkUp, SysctlSet
from firkin.manager.context import Context
from firkin.net.plan import LinkPlan, NetworkPlan, plan_link, plan_network
from firkin.settings import NetworkMode

FORWARDING = "net.ipv4.ip_forward"


def owner_of(network: str) -> str:
    """Under which name a network's own changes stand in the journal."""
    return f"network:{network}"


def plan(context: Context, name: str) -> NetworkPlan:
    """Where a network would be on this host."""
    return plan_network(name, mode=context.settings.network_mode, tag=context.tag)


def join(context: Context, network: NetworkPlan, machine_id: str) -> LinkPlan:
    """Lease a slot and make the machine's tap, after the network itself if this is its first machine."""
    with context.network_locked(network.name):
        owner = owner_of(network.name)
        slot = context.leases.take(network.name, machine_id)
        if not context.ledger.holds(owner):
            _bring_up(context, owner, network)
        link = plan_link(network, slot)
        context.ledger.do(machine_id, LinkUp(link))
    return link


def _bring_up(context: Context, owner: str, network: NetworkPlan) -> None:
    context.ledger.do(owner, NetworkUp(network))
    if network.mode is NetworkMode.HOST:  # guests go out by way of the host
        former = sysctl.read(FORWARDING)
        context.ledger.do(owner, SysctlSet(netns=None, key=FORWARDING, former=former, value="1"))


def sweep(context: Context, network: str) -> None:
    """Take the network down if no machine uses it."""
    with context.network_locked(network):
        if context.leases.count(network) == 0:
            context.ledger.undo_all(owner_of(network))
