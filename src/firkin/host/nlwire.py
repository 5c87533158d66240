"""The bytes of rtnetlink: attributes into messages, messages into values. No socket."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

# linux/netlink.h, linux/rtnetlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
NLM_F_DUMP_INTR = 0x10
NLMSG_ERROR, NLMSG_DONE, NLMSGERR_ATTR_MSG = 2, 3, 1
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 20, 22, 24, 26
# linux/if_link.h, linux/if_bridge.h, linux/veth.h, linux/if_addr.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 20, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE, IFLA_BRPORT_ISOLATED, VETH_INFO_PEER = 1, 5, 33, 1
IFA_ADDRESS, IFA_LOCAL, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 2, 4, 5, 6, 7, 15
IFF_UP, RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 0x1, 254, 4, 1

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, changed flags
ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
TYPE_MASK = 0x3FFF  # the two high bits of an attribute's type are flags
CAPPED_REQUEST = 4 + HEADER.size  # what an error carries before its attributes: errno and the request's header


@dataclass(frozen=True, slots=True)
class Link:
    """One interface as the kernel describes it; `kind` is empty for hardware and loopback."""

    index: int
    name: str
    kind: str
    alias: str
    mac: str
    mtu: int
    up: bool
    master: int | None


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def word(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def link_named(name: str, attributes: bytes = b"", *, up: bool | None = None) -> bytes:
    """Body of a message about one link; its flags stay as they are unless `up` is given."""
    return LINK.pack(0, 0, 0, IFF_UP if up else 0, 0 if up is None else IFF_UP) + text(IFLA_IFNAME, name) + attributes


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence and body of each message in a datagram."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = HEADER.unpack_from(datagram, at)
        yield kind, flags, sequence, datagram[at + HEADER.size : at + length]
        at += max(HEADER.size, length + 3 & ~3)


def parse_attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & TYPE_MASK] = data[at + 4 : at + length]
        at += max(4, length + 3 & ~3)
    return found


def string(value: bytes | None) -> str:
    return "" if value is None else value.rstrip(b"\0").decode(errors="replace")


def number(value: bytes | None) -> int:
    return 0 if value is None else int(struct.unpack("=I", value)[0])


def parse_error(body: bytes) -> tuple[int, str]:
    """errno of an error message (0: it is an acknowledgement), and the kernel's own words if it has any."""
    explanation = parse_attributes(body[CAPPED_REQUEST:]).get(NLMSGERR_ATTR_MSG)
    return -int(struct.unpack_from("=i", body)[0]), string(explanation)


def parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = LINK.unpack_from(body)
    found = parse_attributes(body[LINK.size :])
    info = parse_attributes(found.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=string(found.get(IFLA_IFNAME)),
        kind=string(info.get(IFLA_INFO_KIND)),
        alias=string(found.get(IFLA_IFALIAS)),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=number(found.get(IFLA_MTU)),
        up=bool(flags & IFF_UP),
        master=number(found[IFLA_MASTER]) if IFLA_MASTER in found else None,
    )


def parse_address(body: bytes) -> tuple[int, IPv4Interface]:
    """Index of a link, and an address that it has."""
    _, prefix, _, _, index = ADDRESS.unpack_from(body)
    found = parse_attributes(body[ADDRESS.size :])
    local = found.get(IFA_LOCAL) or found[IFA_ADDRESS]
    return index, IPv4Interface((int.from_bytes(local, "big"), prefix))


@dataclass(frozen=True, slots=True)
class Route:
    """A default route of the main table. A lower `metric` wins; `source` is set only where the route prefers one."""

    oif: int
    gateway: IPv4Address | None
    source: IPv4Address | None
    metric: int


def parse_default_route(body: bytes) -> Route | None:
    """None for every other kind of route."""
    _, prefix, _, _, _, _, _, kind, _ = ROUTE.unpack_from(body)
    found = parse_attributes(body[ROUTE.size :])
    in_main = number(found.get(RTA_TABLE)) == RT_TABLE_MAIN
    if prefix != 0 or kind != RTN_UNICAST or not in_main or RTA_OIF not in found:
        return None
    gateway, source = found.get(RTA_GATEWAY), found.get(RTA_PREFSRC)
    return Route(
        oif=number(found[RTA_OIF]),
        gateway=IPv4Address(gateway) if gateway else None,
        source=IPv4Address(source) if source else None,
        metric=number(found.get(RTA_PRIORITY)),
    )
