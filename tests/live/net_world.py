"""Namespaces for live network tests: each with a name of its own, gone after the test."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

from firkin.host import netns, nft, sysctl
from firkin.host.netlink import Rtnl
from firkin.host.run import run
from firkin.host.wait import wait_until
from firkin.net import links
from firkin.net.plan import LinkPlan

PORT = 4000
REFUSED_AFTER_S = 0.4


def unique() -> str:
    return f"t{secrets.token_hex(3)}"


@contextmanager
def namespace() -> Iterator[str]:
    """A fresh namespace without IPv6, whose address detection would change what tests compare."""
    name = f"fktest-{unique()}"
    netns.create(name)
    try:
        netns.run_in(name, lambda: sysctl.write("net/ipv6/conf/default/disable_ipv6", "1"))
        yield name
    finally:
        netns.delete(name)


def connect(here: str, here_device: str, there: str, there_device: str) -> None:
    """A cable between two namespaces, up at both ends."""
    fd = netns.run_in(there, lambda: open("/proc/thread-self/ns/net"))  # noqa: SIM115, PTH123 - closed below
    with fd:

        def lay() -> None:
            with Rtnl() as rtnl:
                rtnl.add_veth(here_device, there_device, fd.fileno())
                rtnl.change(here_device, up=True)

        netns.run_in(here, lay)

    def finish() -> None:
        with Rtnl() as rtnl:
            rtnl.change(there_device, up=True)

    netns.run_in(there, finish)


def give(where: str, device: str, *addresses: str) -> None:
    def act() -> None:
        with Rtnl() as rtnl:
            for address in addresses:
                rtnl.add_address(device, IPv4Interface(address))

    netns.run_in(where, act)


def play_guest(host: str, guest: str, link: LinkPlan) -> None:
    """Let a namespace be the guest of a link: a cable in place of the tap."""
    connect(host, link.tap, guest, "eth0")
    netns.run_in(host, lambda: links.attach(link))
    give(guest, "eth0", str(link.guest))

    def become() -> None:
        with Rtnl() as rtnl:
            rtnl.change("eth0", mac=link.mac)
            rtnl.add_default_route(link.gateway)

    netns.run_in(guest, become)
    await_forwarding(host, link.tap)


def await_forwarding(where: str, port: str) -> None:
    """The kernel opens a bridge port, and its queue, a moment after both its ends are up."""

    def is_open() -> bool:
        (link,) = json.loads(run("ip", "-n", where, "-j", "-d", "link", "show", port).stdout)
        forwarding = link["linkinfo"]["info_slave_data"]["state"] == "forwarding"
        return bool(forwarding and link["operstate"] == "UP" and link["qdisc"] != "noop")

    assert wait_until(is_open, timeout_s=5)


@contextmanager
def listening(where: str, address: str = "0.0.0.0") -> Iterator[socket.socket]:
    """A TCP server; its namespace is the one it was opened in."""
    with closing(netns.run_in(where, lambda: socket.create_server((address, PORT)))) as server:
        server.settimeout(5)
        yield server


def reaches(where: str, address: str, *, source: str = "") -> bool:
    """Whether a TCP connection from that namespace comes about."""

    def act() -> bool:
        try:
            socket.create_connection((address, PORT), REFUSED_AFTER_S, (source, 0) if source else None).close()
        except OSError:
            return False
        return True

    return netns.run_in(where, act)


def portrait(where: str) -> dict[str, object]:
    """All that can be seen of a namespace: links, addresses, routes, rules, settings."""

    def act() -> dict[str, object]:
        commands = (("-d", "link"), ("addr",), ("route", "show", "table", "all"), ("neigh", "show", "proxy"))
        seen: dict[str, object] = {" ".join(words): run("ip", "-j", *words).stdout for words in commands}
        return seen | {"rules": nft.ruleset(), "settings": _settings()}

    return netns.run_in(where, act)


def _settings() -> dict[str, str]:
    found = {}
    for family in ("ipv4", "ipv6"):
        for path in sorted(Path("/proc/sys/net", family).rglob("*")):
            # Some are write-only, and stable_secret refuses to be read before it was set.
            if path.is_file() and path.name not in ("flush", "stable_secret"):
                found[str(path)] = path.read_text(errors="replace")
    return found
