"""Networks come up with their first machine and go down with their last."""

from __future__ import annotations

from firkin.manager.changes import LinkUp, NetworkUp, SysctlSet
from firkin.manager.context import Context
from firkin.net.forwarding import network_changes
from firkin.net.links import create_network, is_up
from firkin.net.plan import LinkPlan, NetworkPlan, plan_link, plan_network


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
        elif not is_up(network):
            create_network(network)  # completes what a process that was killed left half-made
        link = plan_link(network, slot)
        context.ledger.do(machine_id, LinkUp(link))
    return link


def _bring_up(context: Context, owner: str, network: NetworkPlan) -> None:
    # Settings first: undone last, when the network that needs them is gone.
    for change in network_changes(network):
        context.ledger.do(owner, SysctlSet(change))
    context.ledger.do(owner, NetworkUp(network))


def sweep(context: Context, network: str) -> None:
    """Take the network down if no machine uses it."""
    with context.network_locked(network):
        if context.leases.count(network) == 0:
            context.ledger.undo_all(owner_of(network))
