"""`host` mode, in a namespace that plays the host between a guest and an internet; afterwards nothing is different."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest
from net_world import connect, give, listening, namespace, play_guest, portrait, reaches

from firkin.errors import HostError, InvalidSpec, KernelRefused, NameTaken
from firkin.host import netns, nft, sysctl
from firkin.host.netlink import Rtnl
from firkin.host.run import run
from firkin.net import (
    SysctlChange,
    create_link,
    create_network,
    delete_link,
    delete_network,
    host_address,
    network_changes,
    plan_link,
    plan_network,
)
from firkin.net.plan import LinkPlan, NetworkPlan, mac_of
from firkin.settings import NetworkMode

pytestmark = pytest.mark.live

HOST, SERVER, METADATA = "203.0.113.2", "203.0.113.1", "169.254.169.254"
UPLINK_FORWARDING = "net/ipv4/conf/eth0/forwarding"


@dataclass
class World:
    """Three kinds of namespace: the internet, the host, and guests as they come."""

    host: str
    internet: str
    stack: ExitStack

    def guest(self, link: LinkPlan) -> str:
        name = self.stack.enter_context(namespace())
        play_guest(self.host, name, link)
        return name

    def changes(self, plan: NetworkPlan) -> list[SysctlChange]:
        return netns.run_in(self.host, lambda: network_changes(plan))

    def setting(self, key: str) -> str:
        return netns.run_in(self.host, lambda: sysctl.read(key))

    def set(self, key: str, value: str) -> None:
        netns.run_in(self.host, lambda: sysctl.write(key, value))

    def up(self, plan: NetworkPlan) -> list[SysctlChange]:
        def act() -> list[SysctlChange]:
            changes = network_changes(plan)
            for change in changes:
                change.apply()
            create_network(plan)
            return changes

        return netns.run_in(self.host, act)

    def down(self, plan: NetworkPlan, changes: list[SysctlChange]) -> None:
        def act() -> None:
            delete_network(plan)
            for change in changes:
                change.restore()

        netns.run_in(self.host, act)

    @contextmanager
    def network(self, plan: NetworkPlan) -> Iterator[None]:
        changes = self.up(plan)
        try:
            yield
        finally:
            self.down(plan, changes)


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        host, internet = stack.enter_context(namespace()), stack.enter_context(namespace())
        connect(host, "eth0", internet, "eth0")
        give(host, "eth0", f"{HOST}/24")
        give(internet, "eth0", f"{SERVER}/24", f"{METADATA}/32")

        def route() -> None:
            with Rtnl() as rtnl:
                rtnl.add_default_route(IPv4Address(SERVER))

        netns.run_in(host, route)
        run("ip", "-n", internet, "route", "add", "192.168.0.0/16", "via", HOST)
        yield World(host, internet, stack)


def planned(name: str = "default", subnet: str = "192.168.5.0/24", *, isolated: bool = True) -> NetworkPlan:
    return plan_network(name, mode=NetworkMode.HOST, subnet=IPv4Network(subnet), isolated=isolated)


def test_a_guest_reaches_the_internet_in_the_hosts_name(world: World) -> None:
    plan = planned()
    with world.network(plan), listening(world.internet) as server:
        guest = world.guest(plan_link(plan, 0))
        assert reaches(guest, SERVER)
        connection, (seen, _) = server.accept()
        connection.close()
        assert seen == HOST


def test_the_metadata_service_of_the_host_is_out_of_reach(world: World) -> None:
    plan = planned()
    with world.network(plan), listening(world.internet):
        guest = world.guest(plan_link(plan, 0))
        assert reaches(world.host, METADATA)
        assert not reaches(guest, METADATA)


def test_nobody_outside_opens_a_connection_to_a_guest_but_the_host_does(world: World) -> None:
    plan, link = planned(), plan_link(planned(), 0)
    with world.network(plan):
        guest = world.guest(link)
        with listening(guest):
            assert reaches(world.host, str(link.guest.ip))
            assert not reaches(world.internet, str(link.guest.ip))


def test_a_guest_cannot_borrow_an_address(world: World) -> None:
    plan = planned()
    with world.network(plan), listening(world.internet):
        guest = world.guest(plan_link(plan, 0))
        give(guest, "eth0", "192.168.5.77/24")
        assert reaches(guest, SERVER)
        assert not reaches(guest, SERVER, source="192.168.5.77")


@pytest.mark.parametrize("isolated", [True, False])
def test_neither_bridge_nor_routing_joins_isolated_guests(world: World, isolated: bool) -> None:
    plan = planned(isolated=isolated)
    with world.network(plan):
        one, two = plan_link(plan, 0), plan_link(plan, 1)
        asking, asked = world.guest(one), world.guest(two)
        with listening(asked):
            address = str(two.guest.ip)
            assert reaches(asking, address) is not isolated
            run("ip", "-n", asking, "route", "add", f"{address}/32", "via", str(one.gateway))
            run("ip", "-n", asked, "route", "add", f"{one.guest.ip}/32", "via", str(one.gateway))
            assert reaches(asking, address) is not isolated


def test_the_host_is_afterwards_as_it_was_before(world: World) -> None:
    before = portrait(world.host)
    plan = planned()
    changes = world.up(plan)
    links = [plan_link(plan, slot) for slot in range(2)]
    for link in links:
        netns.run_in(world.host, lambda link=link: create_link(link, owner_uid=0))  # type: ignore[misc]
    assert portrait(world.host) != before
    for link in links:
        netns.run_in(world.host, lambda link=link: delete_link(link))  # type: ignore[misc]
    world.down(plan, changes)
    assert portrait(world.host) == before
    world.down(plan, changes)
    assert portrait(world.host) == before


def test_only_the_uplink_and_the_bridge_forward(world: World) -> None:
    plan = planned()
    with world.network(plan):
        assert world.setting(UPLINK_FORWARDING) == "1"
        assert world.setting(f"net/ipv4/conf/{plan.bridge}/forwarding") == "1"
        assert world.setting("net/ipv4/ip_forward") == "0"
        assert world.setting("net/ipv4/conf/lo/forwarding") == "0"
    assert world.setting(UPLINK_FORWARDING) == "0"


def test_reading_what_would_change_changes_nothing(world: World) -> None:
    before = portrait(world.host)
    plan = planned()
    (change,) = world.changes(plan)
    assert (change.key, change.former, change.value) == (UPLINK_FORWARDING, "0", "1")
    assert portrait(world.host) == before


def test_a_host_that_routes_already_keeps_routing(world: World) -> None:
    world.set("net/ipv4/ip_forward", "1")
    plan = planned()
    assert world.changes(plan) == []
    with world.network(plan):
        pass
    assert world.setting(UPLINK_FORWARDING) == "1"


def test_whoever_switches_routing_on_meanwhile_keeps_it(world: World) -> None:
    plan = planned()
    with world.network(plan):
        world.set("net/ipv4/ip_forward", "1")
    assert world.setting(UPLINK_FORWARDING) == "1"


@pytest.mark.parametrize("first_out", [0, 1])
def test_the_last_of_two_networks_closes_the_uplink(world: World, first_out: int) -> None:
    plans = planned("one"), planned("two", "192.168.6.0/24")
    changes = [world.up(plan) for plan in plans]
    last_out = 1 - first_out
    world.down(plans[first_out], changes[first_out])
    with listening(world.internet):
        assert reaches(world.guest(plan_link(plans[last_out], 0)), SERVER)
    world.down(plans[last_out], changes[last_out])
    assert world.setting(UPLINK_FORWARDING) == "0"


def test_networks_may_not_overlap_each_other_or_the_host(world: World) -> None:
    with world.network(planned("one")):
        with pytest.raises(InvalidSpec, match=r"192\.168\.5\.0/25: collides with 192\.168\.5\.1/24 on fk"):
            netns.run_in(world.host, lambda: create_network(planned("two", "192.168.5.0/25")))
        with pytest.raises(InvalidSpec, match=r"collides with 203\.0\.113\.2/24 on eth0"):
            netns.run_in(world.host, lambda: create_network(planned("two", "203.0.113.0/24")))
        assert len(netns.run_in(world.host, nft.tables)) == 2


def test_a_bridge_of_somebody_else_is_left_alone(world: World) -> None:
    plan = planned()

    def furnish() -> None:
        with Rtnl() as rtnl:
            rtnl.add_bridge(plan.bridge, "06:00:00:00:00:01")

    netns.run_in(world.host, furnish)
    before = portrait(world.host)
    with pytest.raises(NameTaken, match=f"'{plan.bridge}' exists without a mark"):
        netns.run_in(world.host, lambda: create_network(plan))
    netns.run_in(world.host, lambda: delete_network(plan))
    assert portrait(world.host) == before


def test_a_bridge_that_was_never_marked_is_known_by_its_mac(world: World) -> None:
    before = portrait(world.host)
    plan = planned()

    def interrupted() -> None:
        with Rtnl() as rtnl:
            rtnl.add_bridge(plan.bridge, mac_of(plan.gateway.ip))

    netns.run_in(world.host, interrupted)
    netns.run_in(world.host, lambda: delete_network(plan))
    assert portrait(world.host) == before
    netns.run_in(world.host, interrupted)
    with world.network(plan):
        pass
    assert portrait(world.host) == before


def test_the_hosts_own_address_is_found_without_a_packet(world: World) -> None:
    assert netns.run_in(world.host, lambda: host_address(planned())) == IPv4Address(HOST)
    run("ip", "-n", world.host, "route", "del", "default")
    with pytest.raises(KernelRefused, match="own address"):
        netns.run_in(world.host, lambda: host_address(planned()))
    with pytest.raises(HostError, match="no default route"):
        world.changes(planned())
