"""Networks on the real kernel, each in namespaces of the test's own; read back with another netlink library."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface

import pytest
from pyroute2 import NetNS

from firkin.errors import InvalidSpec, NameTaken
from firkin.host import netns, sysctl
from firkin.host.netlink import Rtnl
from firkin.net import links
from firkin.net.plan import NetworkPlan, plan_link, plan_network
from firkin.settings import NetworkMode

pytestmark = pytest.mark.live


@pytest.fixture
def tag() -> str:
    return secrets.token_hex(3)


@pytest.fixture
def network(tag: str) -> Iterator[NetworkPlan]:
    plan = plan_network("test", mode=NetworkMode.OWN, tag=tag)
    yield plan
    links.delete_network(plan)


@pytest.fixture
def host(tag: str) -> Iterator[str]:
    """A namespace that plays the host, with an uplink to another that plays the internet."""
    name, internet = f"fktest-host-{tag}", f"fktest-net-{tag}"
    netns.create(name)
    netns.create(internet)
    with (netns.FOLDER / internet).open() as peer:

        def wire() -> None:
            with Rtnl() as rtnl:
                rtnl.add_veth("eth0", "eth0", peer.fileno())
                rtnl.add_address("eth0", IPv4Interface("203.0.113.2/24"))
                rtnl.change("eth0", up=True)
                rtnl.add_default_route(IPv4Address("203.0.113.1"))

        def answer() -> None:
            with Rtnl() as rtnl:
                rtnl.add_address("eth0", IPv4Interface("203.0.113.1/24"))
                rtnl.change("eth0", up=True)

        try:
            netns.run_in(name, wire)
            netns.run_in(internet, answer)
            yield name
        finally:
            netns.delete(name)
            netns.delete(internet)


def shell(namespace: str, *argv: str) -> str:
    done = netns.run_in(namespace, lambda: subprocess.run(argv, capture_output=True, text=True, check=False))
    return done.stdout + done.stderr


def test_another_library_sees_what_we_made(network: NetworkPlan) -> None:
    link = plan_link(network, 0)
    for _ in range(2):  # making it twice is making it once
        links.create_network(network)
    links.create_link(link, owner_uid=0)
    with NetNS(network.netns) as seen:
        bridge = seen.link("get", ifname=network.bridge)[0]
        tap = seen.link("get", ifname=link.tap)[0]
        assert bridge.get("state") == "up"
        assert tap.get("master") == bridge["index"]
        assert {str(a.get("address")) for a in seen.get_addr(index=bridge["index"], family=2)} == {"192.168.5.1"}
    assert network.netns is not None
    assert "isolated on" in shell(network.netns, "ip", "-d", "link", "show", link.tap)


def test_deleting_twice_is_silent(network: NetworkPlan) -> None:
    link = plan_link(network, 0)
    links.create_network(network)
    links.create_link(link)
    for _ in range(2):
        links.delete_link(link)
        links.delete_network(network)
    assert network.netns is not None
    assert not netns.exists(network.netns)


def test_host_mode_reaches_the_internet_and_leaves_the_host_as_it_was(host: str, tag: str) -> None:
    plan = plan_network("test", mode=NetworkMode.HOST, tag=tag)
    guest = f"fktest-guest-{tag}"
    before = _everything(host)
    netns.create(guest)
    try:
        netns.run_in(host, lambda: links.create_network(plan))
        netns.run_in(host, lambda: sysctl.write("net/ipv4/ip_forward", "1"))
        _plug_in(host, guest, plan)
        assert " 0% packet loss" in shell(guest, "ping", "-c", "2", "-i", "0.2", "-W", "2", "203.0.113.1")
        assert str(netns.run_in(host, lambda: links.host_address(plan))) == "203.0.113.2"
    finally:
        netns.delete(guest)
        netns.run_in(host, lambda: _unplug(plan))
    assert _everything(host) == before


def _plug_in(host: str, guest: str, plan: NetworkPlan) -> None:
    """A veth in a tap's place: the guest is a namespace here."""
    with (netns.FOLDER / guest).open() as peer:

        def plug() -> None:
            with Rtnl() as rtnl:
                rtnl.add_veth("port", "eth0", peer.fileno())
                rtnl.change("port", master=plan.bridge, up=True)

        netns.run_in(host, plug)

    def configure() -> None:
        with Rtnl() as rtnl:
            rtnl.add_address("eth0", IPv4Interface("192.168.5.3/24"))
            rtnl.change("eth0", up=True)
            rtnl.add_default_route(plan.gateway.ip)

    netns.run_in(guest, configure)


def _unplug(plan: NetworkPlan) -> None:
    with Rtnl() as rtnl:
        rtnl.delete("port")
    links.delete_network(plan)
    sysctl.write("net/ipv4/ip_forward", "0")


def _everything(host: str) -> str:
    names = shell(host, "sh", "-c", "ip -o link | cut -d: -f2; ip -4 addr; ip route; nft list ruleset")
    return names + netns.run_in(host, lambda: sysctl.read("net/ipv4/ip_forward"))


def test_a_foreign_bridge_is_neither_used_nor_deleted(host: str, tag: str) -> None:
    plan = plan_network("test", mode=NetworkMode.HOST, tag=tag)

    def occupy() -> None:
        with Rtnl() as rtnl:
            rtnl.add_bridge(plan.bridge, "06:00:00:00:00:99")

    netns.run_in(host, occupy)
    with pytest.raises(NameTaken, match="exists without a mark"):
        netns.run_in(host, lambda: links.create_network(plan))
    netns.run_in(host, lambda: links.delete_network(plan))
    assert plan.bridge in shell(host, "ip", "-o", "link")


def test_a_subnet_that_the_host_has_is_refused(host: str, tag: str) -> None:
    plan = plan_network("test", mode=NetworkMode.HOST, tag=tag, subnet=IPv4Interface("203.0.113.0/24").network)
    with pytest.raises(InvalidSpec, match="eth0"):
        netns.run_in(host, lambda: links.create_network(plan))
