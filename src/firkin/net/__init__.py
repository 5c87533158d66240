"""From a network's name to packets: plans, bridges, taps and rules."""

from __future__ import annotations

from firkin.net.forwarding import SysctlChange, network_changes
from firkin.net.links import create_link, create_network, delete_link, delete_network, host_address
from firkin.net.plan import LinkPlan, NetworkPlan, check_subnet, parse_subnet, plan_link, plan_network

__all__ = [
    "LinkPlan",
    "NetworkPlan",
    "SysctlChange",
    "check_subnet",
    "create_link",
    "create_network",
    "delete_link",
    "delete_network",
    "host_address",
    "network_changes",
    "parse_subnet",
    "plan_link",
    "plan_network",
]
