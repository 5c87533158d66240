"""A few verbs of rtnetlink (rtnetlink(7)), spoken directly: importing a library for them would double a start-up.

Every verb acts in the network namespace of the calling thread at the time the socket was opened.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface
from types import TracebackType
from typing import Self

from firkin.errors import KernelRefused

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE = 16, 17, 18, 20, 22, 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 1, 3, 10, 18, 20, 28
INFO_KIND, INFO_DATA, INFO_SLAVE_KIND, INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER, BRPORT_ISOLATED = 1, 33
IFA_ADDRESS, IFA_LOCAL, RTA_DST, RTA_GATEWAY = 1, 2, 1, 5
IFF_UP = 1
NESTED = 0x8000

HEADER = struct.Struct("=IHHII")
LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBi")
ROUTE = struct.Struct("=BBBBBBBBI")
ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Link:
    """One interface, as far as firkin looks at it."""

    index: int
    name: str
    alias: str
    master: int  # index of its bridge, or 0


def attribute(kind: int, value: bytes) -> bytes:
    """One type-length-value, padded to four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Take type-length-values apart; stops at the first that does not fit."""
    while len(data) >= ATTRIBUTE.size:
        size, kind = ATTRIBUTE.unpack_from(data)
        if size < ATTRIBUTE.size or size > len(data):
            return
        yield kind & ~NESTED, data[ATTRIBUTE.size : size]
        data = data[size + (-size % 4) :]


class Rtnl:
    """One rtnetlink socket. Every verb raises `KernelRefused` with what it tried and the kernel's reason."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def links(self) -> list[Link]:
        """All interfaces of the namespace."""
        return [_link(body) for body in self._dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0))]

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links() if link.name == name), None)

    def addresses(self) -> list[tuple[str, IPv4Interface]]:
        """Every IPv4 address with the name of its interface."""
        names = {link.index: link.name for link in self.links()}
        found = []
        for body in self._dump(RTM_GETADDR, ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, prefix, _, _, index = ADDRESS.unpack_from(body)
            local = dict(attributes(body[ADDRESS.size :])).get(IFA_LOCAL)
            if local is not None:
                found.append((names.get(index, "?"), IPv4Interface((local, prefix))))
        return found

    def add(self, name: str, kind: str, *, alias: str = "", mac: bytes = b"", data: bytes = b"") -> None:
        """Create an interface of this kind, unless one of the name exists."""
        info = _text(INFO_KIND, kind) + (attribute(INFO_DATA | NESTED, data) if data else b"")
        body = _text(IFLA_IFNAME, name) + (attribute(IFLA_ADDRESS, mac) if mac else b"")
        self._new(f"add {kind} {name}", LINK.pack(0, 0, 0, 0, 0) + body + attribute(IFLA_LINKINFO | NESTED, info))
        if alias:
            self.mark(name, alias)

    def mark(self, name: str, alias: str) -> None:
        """Set the free text that `ip link` shows as alias."""
        self._set(name, _text(IFLA_IFALIAS, alias), what=f"mark {name}")

    def add_veth(self, name: str, peer: str, peer_netns: int) -> None:
        """Create a veth pair whose other end, `peer`, lives in the namespace of that descriptor."""
        other = LINK.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, peer) + _u32(IFLA_NET_NS_FD, peer_netns)
        self.add(name, "veth", data=attribute(VETH_INFO_PEER | NESTED, other))

    def delete(self, name: str) -> None:
        """Delete an interface; silent if there is none."""
        body = LINK.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name)
        self._ask(f"delete {name}", RTM_DELLINK, 0, body, accept=(errno.ENODEV,))

    def up(self, name: str) -> None:
        self._set(name, b"", flags=IFF_UP, what=f"bring {name} up")

    def enslave(self, name: str, bridge: str, *, isolated: bool = False) -> None:
        """Put an interface on a bridge; isolated ports cannot reach each other, only the bridge itself."""
        self._set(name, _u32(IFLA_MASTER, self._index(bridge)), what=f"put {name} on {bridge}")
        if isolated:
            port = attribute(INFO_SLAVE_DATA | NESTED, attribute(BRPORT_ISOLATED, b"\1"))
            info = attribute(IFLA_LINKINFO | NESTED, _text(INFO_SLAVE_KIND, "bridge") + port)
            self._set(name, info, what=f"isolate {name}")

    def add_address(self, name: str, address: IPv4Interface) -> None:
        """Give an interface an address, unless it has it."""
        packed = address.ip.packed
        body = ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, 0, self._index(name))
        body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
        flags = NLM_F_CREATE | NLM_F_EXCL
        self._ask(f"add address {address} to {name}", RTM_NEWADDR, flags, body, accept=(errno.EEXIST,))

    def add_default_route(self, gateway: bytes) -> None:
        """Send everything else by way of `gateway`, four bytes."""
        body = ROUTE.pack(socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0) + attribute(RTA_GATEWAY, gateway)
        self._ask("add a default route", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, accept=(errno.EEXIST,))

    def _index(self, name: str) -> int:
        try:
            return socket.if_nametoindex(name)
        except OSError as error:
            raise KernelRefused(f"find interface {name}", errno.ENODEV, hint="ip -br link") from error

    def _set(self, name: str, body: bytes, *, what: str, flags: int = 0) -> None:
        self._ask(what, RTM_NEWLINK, 0, LINK.pack(0, 0, self._index(name), flags, flags) + body)

    def _new(self, what: str, body: bytes) -> None:
        self._ask(what, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, accept=(errno.EEXIST,))

    def _ask(self, what: str, kind: int, flags: int, body: bytes, *, accept: tuple[int, ...] = ()) -> None:
        """One request and its acknowledgement; the errnos in `accept` count as done."""
        self._send(kind, flags | NLM_F_ACK, body)
        for reply, payload in self._messages():
            if reply == NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                if code and code not in accept:
                    hint = "needs root: sudo firkin ..." if code == errno.EPERM and os.geteuid() else ""
                    raise KernelRefused(what, code, hint=hint)
                return

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        self._send(kind, NLM_F_DUMP, body)
        bodies = []
        for reply, payload in self._messages():
            if reply == NLMSG_DONE:
                break
            bodies.append(payload)
        return bodies

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        size = HEADER.size + len(body)
        self._socket.send(HEADER.pack(size, kind, flags | NLM_F_REQUEST, self._sequence, 0) + body)

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        """Replies to the last request, one by one; whoever reads knows which is the last."""
        while True:
            data = self._socket.recv(1 << 17)
            while len(data) >= HEADER.size:
                size, kind, _, sequence, _ = HEADER.unpack_from(data)
                if sequence == self._sequence:
                    yield kind, data[HEADER.size : size]
                data = data[size + (-size % 4) :]


def _link(body: bytes) -> Link:
    found = dict(attributes(body[LINK.size :]))
    index = LINK.unpack_from(body)[2]
    text = {key: found.get(key, b"").rstrip(b"\0").decode(errors="replace") for key in (IFLA_IFNAME, IFLA_IFALIAS)}
    master = struct.unpack("=I", found.get(IFLA_MASTER, bytes(4)))[0]
    return Link(index, text[IFLA_IFNAME], text[IFLA_IFALIAS], master)
