"""The service on one network interface: frames of the guest in, frames for it out. No sockets, bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

from firkin.engine.mmds import frames
from firkin.engine.mmds.config import octets
from firkin.engine.mmds.connection import RECEIVE_SIZE, Connection
from firkin.engine.mmds.frames import ACK, ARP, IPV4, RST, SYN, Malformed, Packet, Segment
from firkin.engine.mmds.service import Mmds
from firkin.fcapi.mmds import DEFAULT_ADDRESS

PORT = 80
MAX_CONNECTIONS = 30
SILENCE_S = 10.0  # a connection that was silent for so long makes room for a new one
_MAX_WAITING = 256  # segments between two calls of `poll`
_MAX_REPLIES = 100  # that belong to no connection

Peer = tuple[bytes, int]


class NetworkStack:
    """ARP, and TCP on port 80 of the configured address. Make a new one for a restored guest: connections are lost."""

    def __init__(self, mmds: Mmds) -> None:
        self._mmds = mmds
        self._metrics = mmds.metrics
        configured = mmds.config.ipv4_address if mmds.config else None
        self._address = octets(configured or DEFAULT_ADDRESS)
        self._connections: dict[Peer, Connection] = {}
        self._waiting: list[tuple[Packet, Segment]] = []
        self._replies: list[bytes] = []
        self._now_s = 0.0

    def detour(self, frame: bytes | bytearray | memoryview, *, partial_checksum: bool) -> bool:
        """Whether a frame of the guest is for the service, which then has it and answers at the next `poll`.

        `partial_checksum`: the frame's virtio-net header says NEEDS_CSUM, so its TCP checksum is not complete; nor need
        it be, since the frame never was on a wire. Such a frame may be longer than any MTU.
        """
        kind = frame[12:14]
        if kind == IPV4:
            if frame[30:34] != self._address:
                return False
            self._take_packet(bytes(frame), partial_checksum=partial_checksum)
            return True
        if kind == ARP:
            return frame[38:42] == self._address and self._take_arp(bytes(frame))
        self._metrics.rx_bad_eth += len(frame) < frames.ETHERNET_SIZE
        return False

    def poll(self, now_s: float) -> list[bytes]:
        """Frames for the guest. To be called after a `detour` that was True, and at `next_tick_s`."""
        self._now_s = now_s
        waiting, self._waiting = self._waiting, []
        for packet, segment in waiting:
            self._take_segment(packet, segment)
        out = [*self._replies, *self._frames(now_s)]
        self._replies = []
        self._metrics.tx_count += len(out)
        self._metrics.tx_frames += len(out)
        self._metrics.tx_bytes += sum(map(len, out))
        return out

    def next_tick_s(self) -> float | None:
        """When `poll` has to be called, on the clock of its `now_s`; None if not before the next frame."""
        if self._waiting or self._replies or any(each.wants_attention for each in self._connections.values()):
            return self._now_s
        deadlines = (each.deadline_s for each in self._connections.values() if each.deadline_s is not None)
        return min(deadlines, default=None)

    # --- from the guest

    def _take_arp(self, frame: bytes) -> bool:
        reply = frames.arp_reply(frame, self._address)
        if reply is None:
            return False
        self._metrics.rx_accepted += 1
        self._reply(reply)
        return True

    def _take_packet(self, frame: bytes, *, partial_checksum: bool) -> None:
        self._metrics.rx_accepted += 1
        try:
            packet = frames.parse_ip(frame)
            if packet.protocol != frames.TCP:
                self._metrics.rx_accepted_unusual += 1
                return
            segment = frames.parse_tcp(packet, self._address, partial_checksum=partial_checksum)
        except Malformed:
            self._metrics.rx_accepted_err += 1
            return
        if segment.target_port != PORT or len(self._waiting) >= _MAX_WAITING:
            self._metrics.rx_accepted_err += 1
            return
        self._metrics.rx_count += 1
        self._waiting.append((packet._replace(payload=b""), _clipped(segment)))

    def _take_segment(self, packet: Packet, segment: Segment) -> None:
        peer = (packet.source, segment.source_port)
        connection = self._connections.get(peer)
        begins = segment.flags == SYN
        if connection is not None and begins and not connection.repeats_syn(segment):
            self._forget(peer)  # the guest knows no more of it
            connection = None
        if connection is not None:
            connection.mac = packet.mac
            self._metrics.rx_accepted_unusual += not connection.receive(segment, self._now_s)
        elif begins and self._make_room():
            self._connections[peer] = Connection(segment, packet.mac, self._mmds.answer, self._now_s)
            self._metrics.connections_created += 1
        else:
            self._metrics.rx_accepted_unusual += 1
            self._refuse(packet, segment)
        if connection is not None and connection.done:
            self._forget(peer)

    def _make_room(self) -> bool:
        """Whether there is room for another connection, if need be in place of the one that was silent longest."""
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        peer, eldest = min(self._connections.items(), key=lambda item: item[1].heard_s)
        if self._now_s - eldest.heard_s <= SILENCE_S:
            return False
        eldest.reset()
        self._replies.extend(self._frames_of(peer, eldest, self._now_s))
        self._forget(peer)
        return True

    def _refuse(self, packet: Packet, segment: Segment) -> None:
        """Reset what belongs to no connection (RFC 9293, 3.10.7.1)."""
        if segment.flags & RST:
            return
        ports = (PORT, segment.source_port)
        if segment.flags & ACK:
            reset = Segment(*ports, segment.ack, 0, RST, 0)
        else:
            reset = Segment(*ports, 0, (segment.seq + segment.size) % 2**32, RST | ACK, 0)
        self._reply(frames.build(reset, self._address, packet.mac, packet.source))

    def _reply(self, frame: bytes) -> None:
        if len(self._replies) < _MAX_REPLIES:
            self._replies.append(frame)
        else:
            self._metrics.tx_errors += 1

    def _forget(self, peer: Peer) -> None:
        del self._connections[peer]
        self._metrics.connections_destroyed += 1

    # --- to the guest

    def _frames(self, now_s: float) -> Iterator[bytes]:
        for peer, connection in list(self._connections.items()):
            yield from self._frames_of(peer, connection, now_s)
            if connection.done:
                self._forget(peer)

    def _frames_of(self, peer: Peer, connection: Connection, now_s: float) -> Iterator[bytes]:
        for segment in connection.segments(now_s):
            yield frames.build(segment, self._address, connection.mac, peer[0])


def stack_for(mmds: Mmds | None, interface_id: str) -> NetworkStack | None:
    """The service on an interface; None where it is not to answer."""
    config = mmds.config if mmds else None
    if mmds is None or config is None or interface_id not in config.network_interfaces:
        return None
    return NetworkStack(mmds)


def _clipped(segment: Segment) -> Segment:
    """Without what no window of ours has room for, and a FIN after it."""
    if len(segment.payload) <= RECEIVE_SIZE:
        return segment
    return segment._replace(payload=segment.payload[:RECEIVE_SIZE], flags=segment.flags & ~frames.FIN)
