"""Names, addresses and MACs; what cannot be planned says why."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec
import pytest

from firkin.errors import InvalidSpec, UsageError
from firkin.net.plan import BRIDGE_PORTS, LinkPlan, NetworkPlan, check_subnet, parse_subnet, plan_link, plan_network
from firkin.settings import NetworkMode

OWN, HOST = NetworkMode.OWN, NetworkMode.HOST
DEVICE_NAME_MAX = 15


def test_first_machine_has_the_address_of_the_tutorial() -> None:
    network = plan_network("default", mode=OWN)
    link = plan_link(network, 0)
    assert (network.netns, network.bridge, str(network.gateway)) == ("firkin-default", "firkin0", "192.168.5.1/24")
    assert link.guest == IPv4Interface("192.168.5.3/24")
    assert link.gateway == IPv4Address("192.168.5.1")
    assert (link.mac, link.tap, link.netns) == ("06:00:c0:a8:05:03", "tap0", "firkin-default")


def test_own_mode_has_a_host_beyond_the_subnet_and_host_mode_finds_it_later() -> None:
    own, host = plan_network("default", mode=OWN), plan_network("default", mode=HOST)
    assert own.host_address == IPv4Interface("198.51.100.1/24")
    assert own.host_address.ip not in own.gateway.network
    assert host.host_address is None
    assert host.netns is None


def test_a_tag_keeps_homes_apart() -> None:
    assert plan_network("default", mode=OWN, tag="ab12cd").netns == "firkin-default-ab12cd"
    tagged, plain = (plan_network("default", mode=HOST, tag=tag) for tag in ("ab12cd", ""))
    assert tagged.bridge != plain.bridge
    assert tagged.mark != plain.mark
    assert plan_link(tagged, 0).tap != plan_link(plain, 0).tap


@pytest.mark.parametrize("mode", NetworkMode)
@pytest.mark.parametrize("name", ["a", "default", "x" * 63, "a-name-with-dashes"])
def test_device_names_fit_the_kernel(mode: NetworkMode, name: str) -> None:
    network = plan_network(name, mode=mode, subnet=IPv4Network("10.0.0.0/8"), tag="ab12cd")
    last = plan_link(network, BRIDGE_PORTS - 1)
    assert max(map(len, (network.bridge, last.tap))) <= DEVICE_NAME_MAX


def test_names_that_begin_alike_get_bridges_of_their_own() -> None:
    bridges = {plan_network(f"project-{number}", mode=HOST).bridge for number in range(50)}
    assert len(bridges) == 50


@pytest.mark.parametrize("mode", NetworkMode)
def test_plans_survive_the_journal(mode: NetworkMode) -> None:
    network = plan_network("default", mode=mode, tag="ab12cd")
    link = plan_link(network, 7)
    assert msgspec.json.decode(msgspec.json.encode(network), type=NetworkPlan) == network
    assert msgspec.json.decode(msgspec.json.encode(link), type=LinkPlan) == link
    assert msgspec.to_builtins(link)["guest"] == "192.168.5.10/24"


def test_a_full_subnet_says_so() -> None:
    network = plan_network("small", mode=OWN, subnet=IPv4Network("10.1.1.0/29"))
    assert plan_link(network, 3).guest == IPv4Interface("10.1.1.6/29")
    with pytest.raises(UsageError, match=r"'small' is full: 10\.1\.1\.0/29 has room for 4"):
        plan_link(network, 4)


def test_a_large_subnet_ends_with_the_ports_of_the_bridge() -> None:
    network = plan_network("large", mode=OWN, subnet=IPv4Network("10.0.0.0/8"))
    with pytest.raises(UsageError, match="room for 1023"):
        plan_link(network, BRIDGE_PORTS)


def test_slots_never_share_an_address_a_mac_or_a_tap() -> None:
    network = plan_network("default", mode=HOST)
    links = [plan_link(network, slot) for slot in range(252)]
    assert len({link.guest for link in links}) == len({link.mac for link in links}) == len({link.tap for link in links})
    assert network.gateway.ip not in {link.guest.ip for link in links}
    assert str(links[-1].guest.ip) == "192.168.5.254"


def test_an_overlap_names_the_interface_and_a_way_out() -> None:
    existing = [("lo", IPv4Interface("127.0.0.1/8")), ("wlan0", IPv4Interface("192.168.5.77/16"))]
    with pytest.raises(
        InvalidSpec, match=r"192\.168\.5\.0/24 overlaps 192\.168\.5\.77/16 of interface 'wlan0'"
    ) as refusal:
        check_subnet(IPv4Network("192.168.5.0/24"), existing)
    assert refusal.value.hint == "choose another: --subnet 10.205.0.0/24"
    check_subnet(IPv4Network("10.205.0.0/24"), existing)


@pytest.mark.parametrize(
    ("subnet", "why"),
    [
        ("10.0.0.0/30", "no room"),
        ("127.1.0.0/24", "reserved"),
        ("169.254.0.0/16", "reserved"),
        ("230.0.0.0/8", "reserved"),
        ("0.0.0.0/0", "reserved"),
    ],
)
def test_subnets_that_cannot_hold_machines_are_refused(subnet: str, why: str) -> None:
    with pytest.raises(InvalidSpec, match=why):
        check_subnet(IPv4Network(subnet), [])


def test_a_public_subnet_is_the_users_choice() -> None:
    check_subnet(IPv4Network("203.0.113.0/24"), [])


def test_own_mode_keeps_its_uplink_out_of_the_subnet() -> None:
    with pytest.raises(InvalidSpec, match="uplink"):
        plan_network("clash", mode=OWN, subnet=IPv4Network("198.51.100.0/24"))


@pytest.mark.parametrize("name", ["", "UPPER", "with space", "a/b", "..", "x" * 64])
def test_names_that_would_break_files_or_devices_are_refused(name: str) -> None:
    with pytest.raises(InvalidSpec, match="is not a name"):
        plan_network(name, mode=OWN)


def test_host_bits_come_with_the_subnet_that_was_meant() -> None:
    assert parse_subnet("10.9.0.0/24") == IPv4Network("10.9.0.0/24")
    with pytest.raises(InvalidSpec) as refusal:
        parse_subnet("10.9.0.7/24")
    assert refusal.value.hint == "--subnet 10.9.0.0/24"
    with pytest.raises(InvalidSpec) as refusal:
        parse_subnet("ten")
    assert refusal.value.hint == "--subnet 192.168.5.0/24"
