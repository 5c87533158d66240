"""All connections of one machine: who may open one, whose turn it is to speak to the guest, and when patience ends.

No sockets and no clock in here: streams come from outside, and every method that needs the time is told it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from firkin.engine.vsock import packet
from firkin.engine.vsock.connection import SMALL_BUFFER, Connection, State, Stream
from firkin.engine.vsock.packet import HOST_CID, STREAM, Header, Packet

MAX_CONNECTIONS = 1023
MAX_RESETS = 256
LARGE_BUFFER = 256 * 1024  # more than twice as fast, and not for everyone: in all 88 MiB if every host program stalls
LARGE_BUFFERS = 128
CONNECT_TIMEOUT_S = 2.0
SHUTDOWN_TIMEOUT_S = 2.0
REDIAL_INTERVAL_S = 0.01
FIRST_HOST_PORT = 1 << 30
_HOST_PORTS = 1 << 30


@dataclass(slots=True)
class Counters:
    """Totals since the start, by the names of the metrics' `vsock` group: received is what the guest receives."""

    rx_packets_count: int = 0
    rx_bytes_count: int = 0
    tx_packets_count: int = 0
    tx_bytes_count: int = 0
    conns_added: int = 0
    conns_killed: int = 0  # of those removed: reset by us, or out of time
    conns_removed: int = 0


Dial = Callable[[Connection], Stream | None]


class Muxer:
    """Routes packets to connections and collects what they have to say.

    `dial` opens the host's socket for a connection that the guest asked for: None when the listener is there but
    busy, OSError when it is not. It is asked again at each `tick` until the connect timeout.
    """

    def __init__(self, guest_cid: int, dial: Dial, *, next_host_port: int = FIRST_HOST_PORT) -> None:
        self.guest_cid = guest_cid
        self.next_host_port = next_host_port
        self.counters = Counters()
        self._dial = dial
        self._connections: dict[tuple[int, int], Connection] = {}
        self._host_ports: dict[int, int] = {}  # how many connections use a port
        self._turns: deque[Connection] = deque()
        self._resets: dict[tuple[int, int], None] = {}  # ordered, and each pair once
        self._dialing: dict[tuple[int, int], Connection] = {}
        self._redial_at_s = 0.0
        self._lingering: set[Connection] = set()
        self._deadlines: deque[tuple[float, Connection]] = deque()  # every timeout is as long, so they stay in order

    def __len__(self) -> int:
        return len(self._connections) + len(self._lingering)

    @property
    def full(self) -> bool:
        return len(self) >= MAX_CONNECTIONS

    @property
    def reset_room(self) -> int:
        """How many more packets may be taken: each may need a reset in answer, and those must not pile up."""
        return max(0, MAX_RESETS - len(self._resets))

    def pairs(self) -> list[tuple[int, int]]:
        """Host and guest port of every connection that the guest may know."""
        return list(self._connections)

    # --- from the host

    def connect(self, stream: Stream, guest_port: int, now_s: float) -> Connection:
        """The host asks for a port of the guest. Check `full` first."""
        connection = Connection(
            self._allocate_port(), guest_port, stream, State.REQUESTED, buffer_size=self._buffer_size()
        )
        self._add(connection)
        self._expire(connection, now_s + CONNECT_TIMEOUT_S)
        self._settle(connection)
        return connection

    def on_stream(self, connection: Connection, *, readable: bool, writable: bool) -> None:
        """The host's socket has news."""
        if connection in self._lingering:
            self._linger(connection)
            return
        if connection.ended or connection.stream is None:
            return
        if writable:
            connection.writable()
        if readable:
            connection.readable()
        self._settle(connection)

    def _allocate_port(self) -> int:
        while self.next_host_port in self._host_ports:
            self._advance_port()
        port = self.next_host_port
        self._advance_port()
        return port

    def _advance_port(self) -> None:
        self.next_host_port = FIRST_HOST_PORT + (self.next_host_port + 1) % _HOST_PORTS

    # --- from the guest

    def receive(self, header: Header, payload: bytes, now_s: float) -> None:
        """Take one packet of the guest; whatever it says, the answer is a packet or silence."""
        self.counters.tx_packets_count += 1
        self.counters.tx_bytes_count += len(payload)
        if header.src_cid != self.guest_cid or header.dst_cid != HOST_CID:
            return  # not from this guest, or not for this host
        key = (header.dst_port, header.src_port)
        connection = self._connections.get(key)
        if connection is not None and header.type == STREAM:
            connection.receive(header, payload)
            self._settle(connection)
        elif header.op == packet.REQUEST and header.type == STREAM and not self.full:
            self._request(header, now_s)
        elif header.op != packet.RST:
            self._resets[key] = None

    def _request(self, header: Header, now_s: float) -> None:
        self._resets.pop((header.dst_port, header.src_port), None)  # meant for an earlier connection of this port
        connection = Connection(header.dst_port, header.src_port, None, State.DIALING, buffer_size=self._buffer_size())
        connection.peer_alloc, connection.peer_forwarded = header.buf_alloc, header.fwd_cnt
        self._add(connection)
        self._try_dial(connection)
        if connection.state is State.DIALING:
            self._dialing[connection.host_port, connection.guest_port] = connection
            self._expire(connection, now_s + CONNECT_TIMEOUT_S)

    def _try_dial(self, connection: Connection) -> None:
        try:
            stream = self._dial(connection)
        except OSError:
            connection.state = State.RESET
        else:
            if stream is None:
                return
            connection.opened(stream)
            connection.deadline_s = None
            self._dialing.pop((connection.host_port, connection.guest_port), None)
        self._settle(connection)

    # --- to the guest

    def has_packets(self) -> bool:
        return bool(self._resets or self._turns)

    def next_packet(self, now_s: float) -> Packet | None:
        """Resets first, then connections in turn. None when nobody has anything to say."""
        found = self._next_packet(now_s)
        if found is not None:
            self.counters.rx_packets_count += 1
            self.counters.rx_bytes_count += len(found.payload)
        return found

    def _next_packet(self, now_s: float) -> Packet | None:
        if self._resets:
            key = next(iter(self._resets))
            del self._resets[key]
            return Packet(*key, packet.RST)
        while self._turns:
            connection = self._turns.popleft()
            connection.queued = False
            found = None if connection.ended else connection.next_packet()
            if found is not None:
                self._watch_shutdown(connection, found, now_s)
                self._settle(connection)
                return found
        return None

    def _watch_shutdown(self, connection: Connection, sent: Packet, now_s: float) -> None:
        if sent.op == packet.SHUTDOWN and connection.host_is_done:
            self._expire(connection, now_s + SHUTDOWN_TIMEOUT_S)

    # --- time

    def tick(self, now_s: float) -> None:
        """Try busy listeners again and end what waited too long."""
        if self._dialing and now_s >= self._redial_at_s:
            self._redial_at_s = now_s + REDIAL_INTERVAL_S
            for connection in list(self._dialing.values()):
                self._try_dial(connection)
        while self._deadlines and self._deadlines[0][0] <= now_s:
            deadline_s, connection = self._deadlines.popleft()
            if connection.deadline_s == deadline_s and not connection.ended:
                connection.state = State.RESET if connection.known_to_guest else State.OVER
                self._settle(connection)

    def next_tick_s(self) -> float | None:
        """When `tick` has something to do, if nothing happens before."""
        while self._deadlines and self._deadlines[0][1].deadline_s != self._deadlines[0][0]:
            self._deadlines.popleft()
        if self._dialing:
            return self._redial_at_s
        return self._deadlines[0][0] if self._deadlines else None

    def _expire(self, connection: Connection, deadline_s: float) -> None:
        connection.deadline_s = deadline_s
        self._deadlines.append((deadline_s, connection))

    # --- the table

    def reset(self) -> None:
        """The guest's driver started afresh: it knows none of the connections, and is told nothing."""
        for connection in list(self._connections.values()):
            connection.state = State.OVER
            self._settle(connection)
        self._resets.clear()
        self._turns.clear()
        self._dialing.clear()

    def break_off(self, pairs: Iterable[tuple[int, int]]) -> None:
        """The guest has connections of which nobody knows any more: they are over, before there are others."""
        self._resets.update(dict.fromkeys(pairs))

    def close(self) -> None:
        """The guest is gone. What it had already written is handed over as far as sockets take it."""
        self.reset()
        for connection in list(self._lingering):
            self._drop(connection)

    def _buffer_size(self) -> int:
        return LARGE_BUFFER if len(self) < LARGE_BUFFERS else SMALL_BUFFER

    def _add(self, connection: Connection) -> None:
        self.counters.conns_added += 1
        self._connections[connection.host_port, connection.guest_port] = connection
        self._host_ports[connection.host_port] = self._host_ports.get(connection.host_port, 0) + 1

    def _settle(self, connection: Connection) -> None:
        """After anything happened to a connection: give it a turn, or let it go."""
        if connection.ended:
            self._forget(connection)
        elif not connection.queued and connection.wants_attention():
            connection.queued = True
            self._turns.append(connection)

    def _forget(self, connection: Connection) -> None:
        key = (connection.host_port, connection.guest_port)
        if self._connections.pop(key, None) is None:
            return
        self.counters.conns_removed += 1
        self.counters.conns_killed += connection.state is State.RESET
        self._host_ports[connection.host_port] -= 1
        if not self._host_ports[connection.host_port]:
            del self._host_ports[connection.host_port]
        self._dialing.pop(key, None)
        connection.deadline_s = None
        if connection.state is State.RESET:
            self._resets[key] = None
        self._lingering.add(connection)
        self._linger(connection)

    def _linger(self, connection: Connection) -> None:
        """Close the host's side once it has all that the guest wrote."""
        if connection.stream is not None:
            connection.writable()
        if not connection.backlog_size:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._lingering.discard(connection)
        if connection.stream is not None:
            connection.stream.close()
