"""Rules as data: what they name, and that they can be applied twice."""

from typing import Any

from firkin.net import firewall
from firkin.net.plan import plan_link, plan_network
from firkin.settings import NetworkMode

NETWORK = plan_network("default", mode=NetworkMode.OWN)


def rules(commands: list[dict[str, Any]], chain: str) -> list[list[dict[str, Any]]]:
    added = [command["add"]["rule"] for command in commands if "rule" in command.get("add", {})]
    return [rule["expr"] for rule in added if rule["chain"] == chain]


def test_leaving_the_subnet_is_masqueraded_whatever_the_way_out() -> None:
    (masquerade,) = rules(firewall.raise_network(NETWORK), "nat")
    assert masquerade[0]["match"]["right"] == {"prefix": {"addr": "192.168.5.0", "len": 24}}
    assert masquerade[1]["match"] == {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "firkin0"}
    assert masquerade[2] == {"masquerade": None}


def test_the_metadata_address_is_dropped_before_any_translation() -> None:
    commands = firewall.raise_network(NETWORK)
    (drop,) = rules(commands, "guard")
    assert drop[1]["match"]["right"] == "169.254.169.254"
    chain = next(
        command["add"]["chain"]
        for command in commands
        if command.get("add", {}).get("chain", {}).get("name") == "guard"
    )
    assert (chain["hook"], chain["prio"]) == ("prerouting", -150)  # destination NAT is at -100


def test_every_chain_is_emptied_before_it_is_filled() -> None:
    commands = firewall.raise_network(NETWORK)
    flushed = [command["flush"]["chain"]["name"] for command in commands if "flush" in command]
    assert flushed == ["guard", "forward", "nat", "spoofing"]


def test_an_open_network_routes_between_its_machines_and_an_isolated_one_does_not() -> None:
    open_network = plan_network("open", mode=NetworkMode.OWN, isolated=False)
    isolated, free = (rules(firewall.raise_network(plan), "forward") for plan in (NETWORK, open_network))
    assert isolated[0][-1] == {"drop": None}
    assert isolated[1:] == free


def test_a_link_admits_its_own_tap_mac_and_address() -> None:
    link = plan_link(NETWORK, 2)
    elements = [command["add"]["element"] for command in firewall.admit(link)]
    assert [element["elem"][0]["concat"] for element in elements] == [
        ["fktap2", "06:00:c0:a8:05:05"],
        ["fktap2", "06:00:c0:a8:05:05", "192.168.5.5"],
    ]


def test_dismissing_works_without_having_been_admitted() -> None:
    verbs = [next(iter(command)) for command in firewall.dismiss(plan_link(NETWORK, 0))]
    assert verbs == ["add", "add", "delete", "delete"]


def test_razing_works_without_anything_raised() -> None:
    commands = firewall.raze_network("firkin0")
    assert [next(iter(command)) for command in commands] == ["add", "delete", "add", "delete"]
