"""A network in a namespace of its own: made, completed, taken down; and what a guest on its tap can do."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest
from net_world import await_forwarding, unique

from firkin.errors import HostError, NameTaken
from firkin.host import netns, nft, sysctl, tun
from firkin.host.netlink import Rtnl
from firkin.host.nlwire import mac_bytes
from firkin.net import create_link, create_network, delete_link, delete_network, host_address, plan_link, plan_network
from firkin.net.plan import LinkPlan, NetworkPlan
from firkin.settings import NetworkMode

pytestmark = pytest.mark.live


@contextmanager
def network_up(*, isolated: bool = True) -> Iterator[NetworkPlan]:
    plan = plan_network("live", mode=NetworkMode.OWN, tag=unique(), isolated=isolated)
    try:
        create_network(plan)
        yield plan
    finally:
        delete_network(plan)


@pytest.fixture
def network() -> Iterator[NetworkPlan]:
    with network_up() as plan:
        yield plan


def device_names(plan: NetworkPlan) -> set[str]:
    def look() -> set[str]:
        with Rtnl() as rtnl:
            return {link.name for link in rtnl.links() if link.up}

    return netns.inside(plan.netns, look)


class Guest:
    """Holds the far end of a tap, as a VMM does, and speaks Ethernet by hand."""

    VNET_HEADER = bytes(10)

    def __init__(self, fd: int, mac: str, address: IPv4Address) -> None:
        self.fd, self.mac, self.address = fd, mac_bytes(mac), address.packed

    def arp(self, target: IPv4Address) -> bytes | None:
        """The MAC that answers for `target`."""
        request = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, self.mac, self.address, bytes(6), target.packed)
        self.send(b"\xff" * 6, 0x0806, request)
        answer = self.receive(lambda frame: frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02")
        return None if answer is None else answer[22:28]

    def ping(self, target: IPv4Address, through: bytes) -> bool:
        echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
        echo = echo[:2] + checksum(echo) + echo[4:]
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(echo), 0, 0, 64, 1, 0, self.address, target.packed)
        self.send(through, 0x0800, head[:10] + checksum(head) + head[12:] + echo)
        return self.receive(lambda frame: frame[12:14] == b"\x08\x00" and frame[26:30] == target.packed) is not None

    def send(self, to: bytes, kind: int, payload: bytes) -> None:
        os.write(self.fd, self.VNET_HEADER + to + self.mac + struct.pack("!H", kind) + payload)

    def receive(self, wanted: Callable[[bytes], bool], timeout_s: float = 0.4) -> bytes | None:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                frame = os.read(self.fd, 2048)[len(self.VNET_HEADER) :]
                if wanted(frame):
                    return frame
        return None


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


@contextmanager
def guest_on(link: LinkPlan, *, mac: str = "", address: str = "") -> Iterator[Guest]:
    """A guest on the tap of a link; it may claim to be another."""
    attached = tun.attached(link.tap)
    assert link.netns is not None
    fd = netns.run_in(link.netns, attached.__enter__)
    try:
        await_forwarding(link.netns, link.tap)
        yield Guest(fd, mac or link.mac, IPv4Address(address) if address else link.guest.ip)
    finally:
        attached.__exit__(None, None, None)


def test_a_guest_reaches_the_bridge_and_the_host_beyond_its_subnet(network: NetworkPlan) -> None:
    link = plan_link(network, 0)
    create_link(link, owner_uid=0)
    beyond = host_address(network)
    with guest_on(link) as guest:
        gateway_mac = guest.arp(link.gateway)
        assert gateway_mac == mac_bytes("06:00:c0:a8:05:01")
        assert guest.ping(link.gateway, gateway_mac)
        assert guest.ping(beyond, gateway_mac)


def test_a_guest_cannot_claim_another_address_or_mac(network: NetworkPlan) -> None:
    link, neighbour = plan_link(network, 0), plan_link(network, 1)
    create_link(link, owner_uid=0)
    create_link(neighbour, owner_uid=0)
    with guest_on(link, address=str(neighbour.guest.ip)) as liar:
        assert liar.arp(link.gateway) is None
    with guest_on(link, mac=neighbour.mac) as liar:
        assert liar.arp(link.gateway) is None
    with guest_on(link, mac=neighbour.mac, address=str(neighbour.guest.ip)) as liar:
        assert liar.arp(link.gateway) is None
    with guest_on(link) as honest:
        assert honest.arp(link.gateway) is not None


@pytest.mark.parametrize("isolated", [True, False])
def test_guests_see_each_other_only_where_the_network_says_so(isolated: bool) -> None:
    with network_up(isolated=isolated) as plan:
        one, two = plan_link(plan, 0), plan_link(plan, 1)
        create_link(one, owner_uid=0)
        create_link(two, owner_uid=0)
        with guest_on(one) as asking, guest_on(two) as asked:
            asking.arp(two.guest.ip)
            heard = asked.receive(lambda frame: frame[:6] == b"\xff" * 6 and frame[6:12] == mac_bytes(one.mac))
            assert (heard is None) == isolated


def test_creating_twice_changes_nothing_and_completes_what_is_missing(network: NetworkPlan) -> None:
    link = plan_link(network, 0)
    create_link(link, owner_uid=0)
    rules = netns.inside(network.netns, nft.ruleset)
    create_network(network)
    create_link(link, owner_uid=0)
    again = netns.inside(network.netns, nft.ruleset)
    assert [without_handles(entry) for entry in again] == [without_handles(entry) for entry in rules]

    def damage() -> None:
        with Rtnl() as rtnl:
            rtnl.change("lo", up=False)
            rtnl.change(network.bridge, up=False)

    netns.inside(network.netns, damage)
    create_network(network)
    assert device_names(network) == {"lo", network.bridge, link.tap}


def without_handles(entry: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    return {kind: {key: value for key, value in body.items() if key != "handle"} for kind, body in entry.items()}


def test_deleting_twice_and_in_any_order_is_silent() -> None:
    with network_up() as plan:
        link = plan_link(plan, 0)
        create_link(link, owner_uid=0)
        delete_link(link)
        delete_link(link)
        assert link.tap not in device_names(plan)
        assert all("element" not in entry for entry in netns.inside(plan.netns, nft.ruleset))
        delete_network(plan)
        delete_network(plan)
        delete_link(link)
        assert plan.netns is not None
        assert not netns.exists(plan.netns)


def test_a_dismissed_link_frees_its_place_in_the_rules(network: NetworkPlan) -> None:
    links = [plan_link(network, slot) for slot in range(2)]
    for link in links:
        create_link(link, owner_uid=0)
    delete_link(links[0])
    sets = [entry["set"] for entry in netns.inside(network.netns, nft.ruleset) if "set" in entry]
    assert all(len(found["elem"]) == 1 for found in sets)
    assert all("fktap1" in str(found["elem"]) for found in sets)


def test_many_processes_may_make_the_same_network_and_link() -> None:
    plan = plan_network("live", mode=NetworkMode.OWN, tag=unique())
    link = plan_link(plan, 0)

    def make(_: int) -> None:
        create_network(plan)
        create_link(link, owner_uid=0)

    try:
        with ThreadPoolExecutor(6) as crowd:
            list(crowd.map(make, range(12)))
        with guest_on(link) as guest:
            assert guest.arp(link.gateway) is not None
    finally:
        delete_network(plan)


def test_a_link_needs_its_network() -> None:
    with network_up() as plan:
        assert plan.netns is not None
        netns.delete(plan.netns)
        netns.create(plan.netns)
        with pytest.raises(HostError, match="bridge 'firkin0' is not there"):
            create_link(plan_link(plan, 0), owner_uid=0)


def test_a_tap_of_somebody_else_is_left_alone(network: NetworkPlan) -> None:
    link = plan_link(network, 0)
    netns.inside(network.netns, lambda: tun.create(link.tap))
    with pytest.raises(NameTaken, match="'fktap0' exists without a mark"):
        create_link(link, owner_uid=0)
    delete_link(link)
    with_tap = netns.inside(network.netns, lambda: sysctl.known(f"net/ipv4/conf/{link.tap}"))
    assert with_tap


def test_a_namespace_of_somebody_else_is_left_alone() -> None:
    plan = plan_network("live", mode=NetworkMode.OWN, tag=unique())
    assert plan.netns is not None
    netns.create(plan.netns)

    def furnish() -> None:
        with Rtnl() as rtnl:
            rtnl.add_bridge("theirs", "06:00:00:00:00:01")
            rtnl.change("theirs", up=True)

    try:
        netns.run_in(plan.netns, furnish)
        with pytest.raises(NameTaken, match="in use by others"):
            create_network(plan)
        delete_network(plan)
        assert netns.exists(plan.netns)
        assert netns.run_in(plan.netns, nft.tables) == set()
    finally:
        netns.delete(plan.netns)


def test_a_network_that_was_interrupted_after_its_namespace_is_taken_down() -> None:
    plan = plan_network("live", mode=NetworkMode.OWN, tag=unique())
    assert plan.netns is not None
    netns.create(plan.netns)
    delete_network(plan)
    assert not netns.exists(plan.netns)
