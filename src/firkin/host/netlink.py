"""Links, addresses and routes by rtnetlink: the few verbs that firkin needs, on one socket, without a program.

A socket belongs to the network namespace of the thread that opened it, whatever that thread does later.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from types import TracebackType
from typing import Self

from firkin.errors import HostError, KernelRefused
from firkin.host import nlwire as wire
from firkin.host.nlwire import Link

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11  # linux/netlink.h
RECEIVE_BYTES = 1 << 16  # the kernel fills no more than 32 kB at a time
DUMP_TRIES = 8


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """The way out: its interface, its next hop, and the host's own address on it."""

    interface: str
    gateway: IPv4Address | None
    source: IPv4Interface | None


class Rtnl:
    """One rtnetlink socket, in the namespace where it is opened. Every verb waits for the kernel's answer.

    Raises:
        KernelRefused: from any verb, naming the link, with the kernel's own explanation where it gives one.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def add_bridge(self, name: str, mac: str) -> None:
        """A bridge that forwards at once: no spanning tree, no forward delay."""
        data = wire.word(wire.IFLA_BR_FORWARD_DELAY, 0) + wire.word(wire.IFLA_BR_STP_STATE, 0)
        self._add(name, "bridge", data, wire.attribute(wire.IFLA_ADDRESS, wire.mac_bytes(mac)))

    def add_veth(self, name: str, peer: str, peer_netns_fd: int | None = None) -> None:
        """A cable; the far end may be born in another namespace."""
        moved = b"" if peer_netns_fd is None else wire.word(wire.IFLA_NET_NS_FD, peer_netns_fd)
        self._add(name, "veth", wire.attribute(wire.VETH_INFO_PEER, wire.link_named(peer, moved)))

    def _add(self, name: str, kind: str, data: bytes, more: bytes = b"") -> None:
        info = wire.text(wire.IFLA_INFO_KIND, kind) + wire.attribute(wire.IFLA_INFO_DATA, data)
        body = wire.link_named(name, more + wire.attribute(wire.IFLA_LINKINFO, info))
        self._tell(wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, body, f"cannot add {kind} {name!r}")

    def delete(self, name: str) -> None:
        """Remove a link; a veth's far end goes with it."""
        self._tell(wire.RTM_DELLINK, 0, wire.link_named(name), f"cannot delete link {name!r}")

    def change(
        self,
        name: str,
        *,
        up: bool | None = None,
        master: str | None = None,
        mac: str | None = None,
        mtu: int | None = None,
        alias: str | None = None,
        netns_fd: int | None = None,
    ) -> None:
        """Change what is given and leave the rest; a `master` of "" frees the link from its bridge."""
        attributes = b""
        if master is not None:
            attributes += wire.word(wire.IFLA_MASTER, self.index(master) if master else 0)
        if mac is not None:
            attributes += wire.attribute(wire.IFLA_ADDRESS, wire.mac_bytes(mac))
        if mtu is not None:
            attributes += wire.word(wire.IFLA_MTU, mtu)
        if alias is not None:
            attributes += wire.text(wire.IFLA_IFALIAS, alias)
        if netns_fd is not None:
            attributes += wire.word(wire.IFLA_NET_NS_FD, netns_fd)
        self._tell(wire.RTM_NEWLINK, 0, wire.link_named(name, attributes, up=up), f"cannot change link {name!r}")

    def isolate(self, name: str, *, isolated: bool = True) -> None:
        """Let a bridge port talk to the bridge and to open ports, but to no other isolated port."""
        slave = wire.attribute(wire.IFLA_BRPORT_ISOLATED, bytes([isolated]))
        info = wire.text(wire.IFLA_INFO_SLAVE_KIND, "bridge") + wire.attribute(wire.IFLA_INFO_SLAVE_DATA, slave)
        body = wire.link_named(name, wire.attribute(wire.IFLA_LINKINFO, info))
        self._tell(wire.RTM_NEWLINK, 0, body, f"cannot isolate bridge port {name!r}")

    def add_address(self, name: str, address: IPv4Interface) -> None:
        """Give a link an address; having it already is fine."""
        body = wire.ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, 0, self.index(name))
        body += wire.attribute(wire.IFA_LOCAL, address.ip.packed) + wire.attribute(wire.IFA_ADDRESS, address.ip.packed)
        flags = wire.NLM_F_CREATE | wire.NLM_F_REPLACE
        self._tell(wire.RTM_NEWADDR, flags, body, f"cannot add {address} to link {name!r}")

    def add_default_route(self, gateway: IPv4Address) -> None:
        """Send what has no other route to `gateway`; replaces a default route of the same metric."""
        main, static, unicast = wire.RT_TABLE_MAIN, wire.RTPROT_STATIC, wire.RTN_UNICAST
        body = wire.ROUTE.pack(socket.AF_INET, 0, 0, 0, main, static, 0, unicast, 0)
        body += wire.attribute(wire.RTA_GATEWAY, gateway.packed)
        flags = wire.NLM_F_CREATE | wire.NLM_F_REPLACE
        self._tell(wire.RTM_NEWROUTE, flags, body, f"cannot make {gateway} the default route")

    def link(self, name: str) -> Link | None:
        """The link of that name, if there is one."""
        try:
            answers = self._ask(wire.RTM_GETLINK, 0, wire.link_named(name), f"cannot look up link {name!r}")
        except KernelRefused as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return wire.parse_link(answers[0])

    def index(self, name: str) -> int:
        """Number of a link that must exist."""
        found = self.link(name)
        if found is None:
            raise KernelRefused(f"link {name!r}", errno.ENODEV, hint="ip link show")
        return found.index

    def links(self) -> list[Link]:
        """Every link of this namespace."""
        return [wire.parse_link(body) for body in self._dump(wire.RTM_GETLINK, wire.LINK.pack(0, 0, 0, 0, 0), "links")]

    def addresses(self) -> list[tuple[str, IPv4Interface]]:
        """Every IPv4 address of this namespace, with its link's name."""
        names = {link.index: link.name for link in self.links()}
        body = wire.ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)
        found = [wire.parse_address(answer) for answer in self._dump(wire.RTM_GETADDR, body, "addresses")]
        return [(names.get(index, str(index)), address) for index, address in found]

    def default_route(self) -> DefaultRoute | None:
        """The main table's best default route and the host's address on it, from tables only: no packet is sent."""
        body = wire.ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        found = [wire.parse_default_route(answer) for answer in self._dump(wire.RTM_GETROUTE, body, "routes")]
        route = min((route for route in found if route is not None), key=lambda route: route.metric, default=None)
        if route is None:
            return None
        interface = next((link.name for link in self.links() if link.index == route.oif), str(route.oif))
        own = [address for name, address in self.addresses() if name == interface]
        return DefaultRoute(interface, route.gateway, choose_source(route, own))

    def _tell(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self._ask(kind, flags | wire.NLM_F_ACK, body, what)

    def _dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        for _ in range(DUMP_TRIES):
            answers = self._ask(kind, wire.NLM_F_DUMP, body, f"cannot list {what}")
            if not self._interrupted:
                return answers
        raise HostError(f"cannot list {what}: they change faster than they can be read", hint="try again")

    def _ask(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        """Send one request and collect the bodies of its answers."""
        self._sequence += 1
        self._interrupted = False
        self._socket.send(wire.message(kind, flags | wire.NLM_F_REQUEST, self._sequence, body))
        answers: list[bytes] = []
        while True:
            for answer_kind, answer_flags, sequence, answer in wire.messages(self._socket.recv(RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                self._interrupted |= bool(answer_flags & wire.NLM_F_DUMP_INTR)
                if answer_kind in (wire.NLMSG_ERROR, wire.NLMSG_DONE):
                    _raise_if_refused(answer, what)
                    return answers
                answers.append(answer)
                if not flags & (wire.NLM_F_ACK | wire.NLM_F_DUMP):
                    return answers


def choose_source(route: wire.Route, own: list[IPv4Interface]) -> IPv4Interface | None:
    """The address the kernel sends from: the route's preferred one, else one near its gateway, else the first."""
    if route.source is not None:
        return next((address for address in own if address.ip == route.source), IPv4Interface(route.source))
    gateway = route.gateway
    near = [address for address in own if gateway is not None and gateway in address.network]
    return next(iter(near or own), None)


def _raise_if_refused(body: bytes, what: str) -> None:
    number, explanation = wire.parse_error(body) if len(body) >= 4 else (0, "")
    if number > 0:
        hint = "run as root" if number in (errno.EPERM, errno.EACCES) else ""
        raise KernelRefused(f"{what} ({explanation})" if explanation else what, number, hint=hint)
