"""What a configuration of the service may say."""

from __future__ import annotations

import pytest

from firkin.engine.faults import Fault
from firkin.engine.mmds.config import checked
from firkin.fcapi.mmds import MmdsConfig

INTERFACES = ("eth0", "eth1", "eth2")


def config(*interfaces: str, address: str | None = None) -> MmdsConfig:
    return MmdsConfig(network_interfaces=interfaces, ipv4_address=address)


def test_interfaces_are_kept_in_the_machines_order_and_the_address_is_filled_in() -> None:
    made = checked(config("eth2", "eth0", "eth2"), INTERFACES)
    assert made == config("eth0", "eth2", address="169.254.169.254")


@pytest.mark.parametrize("address", ["169.254.1.0", "169.254.254.255", "169.254.170.2"])
def test_link_local_addresses_are_taken(address: str) -> None:
    assert checked(config("eth0", address=address), INTERFACES).ipv4_address == address


@pytest.mark.parametrize("address", ["169.254.0.255", "169.254.255.0", "10.0.0.1", "169.253.1.1"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(Fault, match=r"^MMMDS config error: The MMDS IPv4 address is not link local\.$"):
        checked(config("eth0", address=address), INTERFACES)


@pytest.mark.parametrize(
    "address", ["", "1.2.3", "169.254.1.256", "169.254.01.1", "169.254.1.1 ", "a.b.c.d", "1.2.3.4.5"]
)
def test_what_is_no_address_is_refused_as_bad_json(address: str) -> None:
    with pytest.raises(Fault, match="deserializing the json body"):
        checked(config("eth0", address=address), INTERFACES)


def test_interfaces_must_be_named_and_exist() -> None:
    empty = "The list of network interface IDs that allow forwarding MMDS requests is empty."
    with pytest.raises(Fault) as none:
        checked(config(), INTERFACES)
    assert str(none.value) == f"MMMDS config error: {empty}"
    with pytest.raises(Fault) as unknown:
        checked(config("eth0", "eth9"), INTERFACES)
    assert str(unknown.value) == (
        "MMMDS config error: The list of network interface IDs provided contains at least one ID that does not "
        "correspond to any existing network interface."
    )
