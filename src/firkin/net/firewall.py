"""A network's rules as nftables JSON. Pure.

Two tables per network, named after its bridge: `inet` for what is routed, `bridge` for what a port may claim to be.
Every list may be applied twice: tables and sets are added where they are missing, chains are emptied before they are
filled, and all of it is one transaction.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

from firkin.net.plan import LinkPlan, NetworkPlan

METADATA = "169.254.169.254"  # where clouds keep the credentials of the host
Expression = dict[str, Any]

ACCEPT: Expression = {"accept": None}
DROP: Expression = {"drop": None}
MASQUERADE: Expression = {"masquerade": None}
PORT: Expression = {"meta": {"key": "iifname"}}


def tables(bridge: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Family and name of a network's tables."""
    return ("inet", f"firkin_{bridge}"), ("bridge", f"firkin_{bridge}")


def raise_network(plan: NetworkPlan) -> list[Expression]:
    """Everything for a network without machines."""
    return [*_routing(plan), *_ports(plan)]


def raze_network(bridge: str) -> list[Expression]:
    """Remove both tables, whether they exist or not."""
    commands: list[Expression] = []
    for family, name in tables(bridge):
        table = {"table": {"family": family, "name": name}}
        commands += [{"add": table}, {"delete": table}]
    return commands


def admit(plan: LinkPlan) -> list[Expression]:
    """Let the tap send as its guest, and as nobody else."""
    return [{"add": element} for element in _elements(plan)]


def dismiss(plan: LinkPlan) -> list[Expression]:
    """Take the tap's right to send away; it need not have any, but the table must exist."""
    return [*admit(plan), *({"delete": element} for element in _elements(plan))]


def _routing(plan: NetworkPlan) -> list[Expression]:
    bridge, subnet = plan.bridge, plan.gateway.network
    from_guest, to_guest = _match(PORT, bridge), _match({"meta": {"key": "oifname"}}, bridge)
    answered = _match({"ct": {"key": "state"}}, ["established", "related"], "in")
    # Isolation of ports ends at the bridge: the host must not route between them either.
    between = [[from_guest, to_guest, DROP]] if plan.isolated else []
    forward = [*between, [from_guest, ACCEPT], [to_guest, answered, ACCEPT], [to_guest, DROP]]
    leaving = [_match(_field("ip", "saddr"), _prefix(subnet)), _match({"meta": {"key": "oifname"}}, bridge, "!=")]
    table = tables(bridge)[0]
    return [
        _table(table),
        # Before any address translation, so that the destination is the one the guest asked for.
        *_chain(table, "guard", "filter", "prerouting", -150, [[from_guest, *_to(METADATA), DROP]]),
        *_chain(table, "forward", "filter", "forward", 0, forward),
        *_chain(table, "nat", "nat", "postrouting", 100, [[*leaving, MASQUERADE]]),
    ]


def _ports(plan: NetworkPlan) -> list[Expression]:
    table = tables(plan.bridge)[1]
    mac, address = _field("ether", "saddr"), _field("ip", "saddr")
    arp_mac, arp_address = _field("arp", "saddr ether"), _field("arp", "saddr ip")
    rules = [
        [_match(PORT, f"{plan.tap_prefix}*", "!="), ACCEPT],
        [_match(_all(PORT, mac), "@ports", "!="), DROP],
        [_match(_all(PORT, mac, address), "@leases"), ACCEPT],
        [_match(_all(PORT, arp_mac, arp_address), "@leases"), ACCEPT],
        [DROP],
    ]
    return [
        _table(table),
        _set(table, "ports", ["ifname", "ether_addr"]),
        _set(table, "leases", ["ifname", "ether_addr", "ipv4_addr"]),
        *_chain(table, "spoofing", "filter", "prerouting", -200, rules),
    ]


def _elements(plan: LinkPlan) -> list[Expression]:
    family, name = tables(plan.bridge)[1]
    table = {"family": family, "table": name}
    port = {"concat": [plan.tap, plan.mac]}
    lease = {"concat": [plan.tap, plan.mac, str(plan.guest.ip)]}
    return [
        {"element": table | {"name": "ports", "elem": [port]}},
        {"element": table | {"name": "leases", "elem": [lease]}},
    ]


def _match(left: Expression, right: object, operator: str = "==") -> Expression:
    return {"match": {"op": operator, "left": left, "right": right}}


def _field(protocol: str, name: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": name}}


def _to(address: str) -> list[Expression]:
    return [_match(_field("ip", "daddr"), address)]


def _prefix(network: IPv4Network) -> Expression:
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def _all(*parts: Expression) -> Expression:
    return {"concat": list(parts)}


def _table(table: tuple[str, str]) -> Expression:
    return {"add": {"table": {"family": table[0], "name": table[1]}}}


def _set(table: tuple[str, str], name: str, kind: list[str]) -> Expression:
    return {"add": {"set": {"family": table[0], "table": table[1], "name": name, "type": kind}}}


def _chain(
    table: tuple[str, str], name: str, kind: str, hook: str, priority: int, rules: list[list[Expression]]
) -> list[Expression]:
    """A base chain with exactly these rules."""
    where = {"family": table[0], "table": table[1]}
    chain = where | {"name": name}
    hooked = chain | {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
    filled = [{"add": {"rule": where | {"chain": name, "expr": rule}}} for rule in rules]
    return [{"add": {"chain": hooked}}, {"flush": {"chain": chain}}, *filled]
