"""What an identity looks like on the wire."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Interface
from uuid import UUID

import pytest

from firkin.agent.identity import Identity, render_identity
from firkin.agent.initrd import GuestFile, Interface
from firkin.errors import InvalidSpec

LOCALHOST = "127.0.0.1%20localhost%0A::1%20localhost%20ip6-localhost%20ip6-loopback%0A"
WEB = Identity(hostname="web", seed=b"\0s", boot_id=UUID(int=1))


def test_each_part_has_its_statement_in_the_order_in_which_it_is_applied() -> None:
    identity = dataclasses.replace(
        WEB,
        macs=(("06:00:00:00:00:01", "06:00:00:00:00:02"),),
        interfaces=(Interface("06:00:00:00:00:02", IPv4Interface("10.0.0.2/24"), IPv4Address("10.0.0.1")),),
        dns=(IPv4Address("10.0.0.1"),),
        files=(GuestFile("/etc/machine-id", b"ab\n", mode=0o444),),
        hangups=("/run/sshd.pid",),
    )
    assert render_identity(identity, 1_800_000_000_000_000_007).decode().splitlines() == [
        "firkin 1",
        "seed %00s",
        "clock 1800000000 7",
        "mac 06:00:00:00:00:01 06:00:00:00:00:02",
        "interface 06:00:00:00:00:02 10.0.0.2/24 10.0.0.1",
        "file 644 0 0 /etc/hostname web%0A",
        f"file 644 0 0 /etc/hosts {LOCALHOST}10.0.0.2%20web%0A",
        "file 644 0 0 /etc/resolv.conf nameserver%2010.0.0.1%0A",
        "file 444 0 0 /etc/machine-id ab%0A",
        "hostname web",
        "bootid 00000000-0000-0000-0000-000000000001",
        "hangup /run/sshd.pid",
    ]


def test_without_an_interface_the_name_is_on_the_loopback() -> None:
    assert b"127.0.1.1%20web%0A" in render_identity(WEB, 0)


def test_a_word_that_the_guest_could_not_take_is_refused_here() -> None:
    with pytest.raises(InvalidSpec, match="NUL"):
        render_identity(dataclasses.replace(WEB, hangups=("/run/\0",)), 0)
