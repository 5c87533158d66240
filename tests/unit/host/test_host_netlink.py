"""rtnetlink's bytes, without a socket."""

import errno
import struct
from ipaddress import IPv4Address, IPv4Interface

from firkin.host import nlwire as wire
from firkin.host.netlink import choose_source


def test_attributes_are_padded_to_four_bytes_and_come_back_whole() -> None:
    data = wire.text(3, "lo") + wire.word(4, 1500) + wire.attribute(1, bytes(6))
    assert len(data) % 4 == 0
    assert wire.parse_attributes(data) == {3: b"lo\0", 4: struct.pack("=I", 1500), 1: bytes(6)}


def test_flags_in_an_attributes_type_are_not_part_of_it() -> None:
    nested = wire.attribute(18 | 0x8000, b"abcd")
    assert wire.parse_attributes(nested) == {18: b"abcd"}


def test_a_datagram_with_a_broken_length_ends() -> None:
    broken = wire.HEADER.pack(0, 16, 0, 1, 0) + bytes(8)
    assert len(list(wire.messages(broken))) == 1
    assert wire.parse_attributes(struct.pack("=HH", 0, 3) + bytes(4))[3] == b""


def test_two_messages_in_one_datagram() -> None:
    datagram = wire.message(16, 0, 7, b"one!") + wire.message(3, 0, 7, b"")
    assert list(wire.messages(datagram)) == [(16, 0, 7, b"one!"), (3, 0, 7, b"")]


def test_a_refusal_carries_the_kernels_own_words() -> None:
    body = struct.pack("=i", -errno.EBUSY) + bytes(wire.HEADER.size) + wire.text(1, "Device is a bridge already")
    assert wire.parse_error(body) == (errno.EBUSY, "Device is a bridge already")
    assert wire.parse_error(struct.pack("=i", 0) + bytes(wire.HEADER.size)) == (0, "")


def test_a_link_is_read_from_its_message() -> None:
    info = wire.attribute(wire.IFLA_LINKINFO, wire.text(wire.IFLA_INFO_KIND, "bridge"))
    mac = wire.attribute(wire.IFLA_ADDRESS, wire.mac_bytes("06:00:c0:a8:05:01"))
    body = wire.link_named("firkin0", wire.text(wire.IFLA_IFALIAS, "firkin:default") + mac + info, up=True)
    link = wire.parse_link(body)
    assert (link.name, link.kind, link.alias, link.mac) == ("firkin0", "bridge", "firkin:default", "06:00:c0:a8:05:01")
    assert link.up
    assert link.master is None


def test_an_address_keeps_its_prefix() -> None:
    body = wire.ADDRESS.pack(2, 24, 0, 0, 5) + wire.attribute(wire.IFA_LOCAL, IPv4Address("192.168.5.1").packed)
    assert wire.parse_address(body) == (5, IPv4Interface("192.168.5.1/24"))


def default_route(prefix: int = 0, kind: int = wire.RTN_UNICAST, table: int = wire.RT_TABLE_MAIN) -> bytes:
    head = wire.ROUTE.pack(2, prefix, 0, 0, 0, 0, 0, kind, 0)
    gateway = wire.attribute(wire.RTA_GATEWAY, IPv4Address("10.0.0.1").packed)
    return (
        head
        + wire.word(wire.RTA_TABLE, table)
        + wire.word(wire.RTA_OIF, 2)
        + wire.word(wire.RTA_PRIORITY, 100)
        + gateway
    )


def test_only_default_routes_of_the_main_table_count() -> None:
    route = wire.parse_default_route(default_route())
    assert route == wire.Route(oif=2, gateway=IPv4Address("10.0.0.1"), source=None, metric=100)
    assert wire.parse_default_route(default_route(prefix=24)) is None
    assert wire.parse_default_route(default_route(kind=7)) is None  # RTN_UNREACHABLE
    assert wire.parse_default_route(default_route(table=255)) is None


def test_the_source_is_the_preferred_then_the_near_then_the_first_address() -> None:
    far, near = IPv4Interface("172.20.0.5/24"), IPv4Interface("10.0.0.9/24")
    gateway = IPv4Address("10.0.0.1")
    assert choose_source(wire.Route(2, gateway, None, 0), [far, near]) == near
    assert choose_source(wire.Route(2, gateway, far.ip, 0), [near, far]) == far
    assert choose_source(wire.Route(2, None, None, 0), [far, near]) == far
    assert choose_source(wire.Route(2, gateway, None, 0), []) is None
