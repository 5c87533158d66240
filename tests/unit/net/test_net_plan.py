"""Networks are decided before anything is touched."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import InvalidSpec, UsageError
from firkin.net.firewall import down, up
from firkin.net.plan import LinkPlan, check_subnet, decode_address, encode_address, plan_link, plan_network
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


def test_rules_stay_in_one_table_of_firkins() -> None:
    network = plan_network("web", mode=NetworkMode.HOST, tag="abcdef")
    bodies = [(kind, body) for rule in up(network) + down(network) for kind, body in next(iter(rule.values())).items()]
    assert len({body["name"] if kind == "table" else body["table"] for kind, body in bodies}) == 1
