"""Networks are decided before anything is touched."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import InvalidSpec, UsageError
from firkin.net.forwarding import SysctlChange
from firkin.net.plan import (
    BRIDGE_PORTS,
    LinkPlan,
    NetworkPlan,
    check_subnet,
    decode_address,
    encode_address,
    parse_subnet,
    plan_link,
    plan_network,
)
from firkin.settings import NetworkMode


def test_the_defaults_are_the_tutorials() -> None:
    network = plan_network("default", mode=NetworkMode.OWN)
    link = plan_link(network, 0)
    assert (network.netns, network.bridge, str(network.gateway)) == ("firkin-default", "firkin0", "192.168.5.1/24")
    assert (str(link.guest), link.mac) == ("192.168.5.3/24", "06:00:c0:a8:05:03")
    assert link.gateway == IPv4Address("192.168.5.1")


def test_homes_do_not_share_host_objects() -> None:
    mine, yours = (plan_network("default", mode=NetworkMode.HOST, tag=tag) for tag in ("aaaaaa", "bbbbbb"))
    assert mine.bridge != yours.bridge
    assert plan_network("default", mode=NetworkMode.OWN, tag="aaaaaa").netns == "firkin-default-aaaaaa"


@given(st.integers(0, 250), st.sampled_from(NetworkMode), st.text("abcdef0123456789", max_size=6))
def test_every_slot_has_names_that_the_kernel_takes(slot: int, mode: NetworkMode, tag: str) -> None:
    network = plan_network("a-long-name-of-a-network", mode=mode, tag=tag)
    link = plan_link(network, slot)
    assert max(len(link.tap), len(network.bridge)) <= 15
    assert link.guest.ip in network.gateway.network
    assert link.guest.ip != network.gateway.ip


@given(st.lists(st.integers(0, 250), unique=True, min_size=2, max_size=20))
def test_slots_never_share_an_address_a_mac_or_a_tap(slots: list[int]) -> None:
    network = plan_network("default", mode=NetworkMode.HOST, tag="abcdef")
    links = [plan_link(network, slot) for slot in slots]
    for values in ({link.guest for link in links}, {link.mac for link in links}, {link.tap for link in links}):
        assert len(values) == len(slots)


def test_a_full_network_says_so() -> None:
    with pytest.raises(UsageError, match="is full"):
        plan_link(plan_network("default", mode=NetworkMode.OWN), 252)


def test_plans_survive_the_journal() -> None:
    link = plan_link(plan_network("default", mode=NetworkMode.OWN), 7)
    text = msgspec.json.encode(link, enc_hook=encode_address)
    assert msgspec.json.decode(text, type=LinkPlan, dec_hook=decode_address) == link


@pytest.mark.parametrize("taken", ["192.168.5.9/24", "192.168.0.1/16", "192.168.5.129/32"])
def test_a_collision_names_the_interface(taken: str) -> None:
    with pytest.raises(InvalidSpec, match="eth0") as refusal:
        check_subnet(IPv4Network("192.168.5.0/24"), [("eth0", IPv4Interface(taken))])
    assert refusal.value.hint


def test_a_free_subnet_passes_and_a_tiny_one_does_not() -> None:
    check_subnet(IPv4Network("192.168.5.0/24"), [("eth0", IPv4Interface("10.0.0.1/8"))])
    with pytest.raises(InvalidSpec, match="no room"):
        check_subnet(IPv4Network("192.168.5.0/30"), [])


@pytest.mark.parametrize("mode", NetworkMode)
def test_whole_networks_survive_the_journal(mode: NetworkMode) -> None:
    network = plan_network("default", mode=mode, tag="abcdef")
    text = msgspec.json.encode(network, enc_hook=encode_address)
    assert msgspec.json.decode(text, type=NetworkPlan, dec_hook=decode_address) == network
    change = SysctlChange(netns=None, bridge="firkin0", key="net/ipv4/conf/eth0/forwarding", former="0", value="1")
    assert msgspec.json.decode(msgspec.json.encode(change), type=SysctlChange) == change


def test_a_small_subnet_counts_its_room() -> None:
    network = plan_network("small", mode=NetworkMode.OWN, subnet=IPv4Network("10.1.1.0/29"))
    assert plan_link(network, 3).guest == IPv4Interface("10.1.1.6/29")
    with pytest.raises(UsageError, match=r"'small' is full: 10\.1\.1\.0/29 has room for 4"):
        plan_link(network, 4)


@pytest.mark.parametrize("mode", NetworkMode)
def test_a_large_subnet_ends_with_the_ports_of_the_bridge(mode: NetworkMode) -> None:
    network = plan_network("large", mode=mode, subnet=IPv4Network("10.0.0.0/8"), tag="abcdef")
    assert len(plan_link(network, BRIDGE_PORTS - 1).tap) <= 15
    with pytest.raises(UsageError, match="room for 1023"):
        plan_link(network, BRIDGE_PORTS)


@pytest.mark.parametrize(
    "subnet",
    ["127.1.0.0/24", "169.254.0.0/16", "230.0.0.0/8", "0.0.0.0/0"],
    ids=["lo", "link-local", "multicast", "all"],
)
def test_reserved_subnets_are_refused(subnet: str) -> None:
    with pytest.raises(InvalidSpec, match="reserved"):
        check_subnet(IPv4Network(subnet), [])


def test_a_public_subnet_is_the_users_choice() -> None:
    check_subnet(IPv4Network("203.0.113.0/24"), [])


def test_own_mode_keeps_the_hosts_address_out_of_the_subnet() -> None:
    with pytest.raises(InvalidSpec, match=r"198\.51\.100\.1/32 on lo"):
        plan_network("clash", mode=NetworkMode.OWN, subnet=IPv4Network("198.51.100.0/24"))


@pytest.mark.parametrize("name", ["", "UPPER", "with space", "a/b", "..", "x" * 64])
def test_names_that_would_break_files_or_devices_are_refused(name: str) -> None:
    with pytest.raises(InvalidSpec, match="is not a name"):
        plan_network(name, mode=NetworkMode.OWN)


def test_host_bits_come_with_the_subnet_that_was_meant() -> None:
    assert parse_subnet("10.9.0.0/24") == IPv4Network("10.9.0.0/24")
    with pytest.raises(InvalidSpec) as refusal:
        parse_subnet("10.9.0.7/24")
    assert refusal.value.hint == "--subnet 10.9.0.0/24"
    with pytest.raises(InvalidSpec) as refusal:
        parse_subnet("ten")
    assert refusal.value.hint == "--subnet 192.168.5.0/24"
