"""A network's rules as nftables JSON, all in one table of firkin's own. Pure."""

from __future__ import annotations

from typing import Any

from firkin.net.plan import NetworkPlan

METADATA = "169.254.169.254"  # a cloud host's own credentials: never a guest's business

Rule = dict[str, Any]


def table_of(plan: NetworkPlan) -> str:
    return f"firkin_{plan.bridge.replace('-', '_')}"


def up(plan: NetworkPlan) -> list[Rule]:
    """Masquerade what leaves the subnet; let guests out and answers in; keep the metadata address away."""
    table, bridge = table_of(plan), plan.bridge
    subnet = {"prefix": {"addr": str(plan.gateway.network.network_address), "len": plan.gateway.network.prefixlen}}
    source = _match(_payload("saddr"), "==", subnet)
    return [
        {"add": {"table": {"family": "inet", "name": table}}},
        *down(plan),
        {"add": {"table": {"family": "inet", "name": table}}},
        _chain(table, "postrouting", "nat", "postrouting", 100),
        _chain(table, "forward", "filter", "forward", 0),
        _chain(table, "prerouting", "filter", "prerouting", -150),
        _rule(table, "postrouting", source, _match(_meta("oifname"), "!=", bridge), {"masquerade": None}),
        _rule(table, "forward", _match(_meta("iifname"), "==", bridge), {"accept": None}),
        _rule(table, "forward", _match(_meta("oifname"), "==", bridge), _established(), {"accept": None}),
        _rule(table, "forward", _match(_meta("oifname"), "==", bridge), {"drop": None}),
        _rule(
            table,
            "prerouting",
            _match(_meta("iifname"), "==", bridge),
            _match(_payload("daddr"), "==", METADATA),
            {"drop": None},
        ),
    ]


def down(plan: NetworkPlan) -> list[Rule]:
    """Remove the table and all in it."""
    return [{"delete": {"table": {"family": "inet", "name": table_of(plan)}}}]


def _chain(table: str, name: str, kind: str, hook: str, priority: int) -> Rule:
    chain = {"family": "inet", "table": table, "name": name, "type": kind, "hook": hook, "prio": priority}
    return {"add": {"chain": chain | {"policy": "accept"}}}


def _rule(table: str, chain: str, *parts: Rule) -> Rule:
    return {"add": {"rule": {"family": "inet", "table": table, "chain": chain, "expr": list(parts)}}}


def _match(left: Rule, op: str, right: object) -> Rule:
    return {"match": {"left": left, "op": op, "right": right}}


def _meta(key: str) -> Rule:
    return {"meta": {"key": key}}


def _payload(field: str) -> Rule:
    return {"payload": {"protocol": "ip", "field": field}}


def _established() -> Rule:
    return _match({"ct": {"key": "state"}}, "in", ["established", "related"])
