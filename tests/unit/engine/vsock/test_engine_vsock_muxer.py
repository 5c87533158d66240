"""Connections between a guest of packets and a host of streams."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vsock_fakes import FakeStream

from firkin.engine.vsock import packet
from firkin.engine.vsock.connection import SMALL_BUFFER, Connection
from firkin.engine.vsock.muxer import (
    CONNECT_TIMEOUT_S,
    FIRST_HOST_PORT,
    LARGE_BUFFER,
    LARGE_BUFFERS,
    MAX_CONNECTIONS,
    MAX_RESETS,
    SHUTDOWN_TIMEOUT_S,
    Muxer,
)
from firkin.engine.vsock.packet import BOTH_WAYS, NO_MORE_RECEIVE, NO_MORE_SEND, Header, Packet

CID = 3
GUEST_PORT, HOST_PORT = 4000, 52


class Wire:
    """A muxer, the guest who sends it packets, and host programs that listen on some ports."""

    def __init__(self) -> None:
        self.listening: dict[int, FakeStream | None] = {}
        self.muxer = Muxer(CID, self._dial)
        self.now_s = 0.0

    def _dial(self, connection: Connection) -> FakeStream | None:
        if connection.host_port not in self.listening:
            raise FileNotFoundError
        return self.listening[connection.host_port]

    def guest(
        self,
        op: int,
        payload: bytes = b"",
        *,
        host_port: int = HOST_PORT,
        guest_port: int = GUEST_PORT,
        flags: int = 0,
        credit: int = 1 << 18,
        forwarded: int = 0,
        kind: int = packet.STREAM,
        src_cid: int = CID,
        dst_cid: int = packet.HOST_CID,
    ) -> None:
        header = Header(src_cid, dst_cid, guest_port, host_port, len(payload), kind, op, flags, credit, forwarded)
        self.muxer.receive(header, payload, self.now_s)

    def hears(self) -> list[Packet]:
        """Everything the guest is told now."""
        heard: list[Packet] = []
        while (found := self.muxer.next_packet(self.now_s)) is not None:
            heard.append(found)
            assert len(heard) < 5000, "the muxer never falls silent"
        return heard

    def ops(self) -> list[int]:
        return [found.op for found in self.hears()]

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.muxer.tick(self.now_s)

    def host_connects(self, stream: FakeStream, *, credit: int = 1 << 18) -> Connection:
        """A connection from the host that the guest accepted; its port is `connection.host_port`."""
        connection = self.muxer.connect(stream, GUEST_PORT, self.now_s)
        assert self.ops() == [packet.REQUEST]
        self.guest(packet.RESPONSE, host_port=connection.host_port, credit=credit)
        return connection

    def guest_connects(self, stream: FakeStream) -> Connection:
        self.listening[HOST_PORT] = stream
        self.guest(packet.REQUEST)
        assert self.ops()[0] == packet.RESPONSE
        return self.muxer._connections[HOST_PORT, GUEST_PORT]


@pytest.fixture
def wire() -> Wire:
    return Wire()


# --- opening


def test_host_connect_is_asked_accepted_and_acknowledged(wire: Wire) -> None:
    stream = FakeStream()
    wire.host_connects(stream)
    assert stream.outbox == b"OK %d\n" % FIRST_HOST_PORT


def test_host_ports_count_up_and_wrap(wire: Wire) -> None:
    wire.muxer.next_host_port = (1 << 31) - 1
    ports = [wire.muxer.connect(FakeStream(), 1, 0).host_port for _ in range(3)]
    assert ports == [(1 << 31) - 1, FIRST_HOST_PORT, FIRST_HOST_PORT + 1]


def test_used_host_port_is_skipped(wire: Wire) -> None:
    wire.muxer.connect(FakeStream(), 1, 0)
    wire.muxer.next_host_port = FIRST_HOST_PORT
    assert wire.muxer.connect(FakeStream(), 1, 0).host_port == FIRST_HOST_PORT + 1


def test_guest_refuses(wire: Wire) -> None:
    stream = FakeStream()
    connection = wire.muxer.connect(stream, GUEST_PORT, 0)
    wire.hears()
    wire.guest(packet.RST, host_port=connection.host_port)
    assert stream.closed
    assert not stream.outbox
    assert wire.ops() == []
    assert len(wire.muxer) == 0


def test_guest_that_never_answers_is_given_up(wire: Wire) -> None:
    stream = FakeStream()
    wire.muxer.connect(stream, GUEST_PORT, 0)
    wire.hears()
    wire.wait(CONNECT_TIMEOUT_S - 0.1)
    assert [stream.closed] == [False]  # in a list: mypy would take the attribute for settled
    assert wire.muxer.next_tick_s() == CONNECT_TIMEOUT_S
    wire.wait(0.1)
    assert stream.closed
    assert wire.ops() == [packet.RST]
    assert wire.muxer.next_tick_s() is None


def test_request_that_was_never_delivered_needs_no_reset(wire: Wire) -> None:
    wire.muxer.connect(FakeStream(), GUEST_PORT, 0)
    wire.wait(CONNECT_TIMEOUT_S)
    assert wire.ops() == []


def test_guest_connects_and_is_answered(wire: Wire) -> None:
    wire.guest_connects(FakeStream())
    assert wire.muxer.next_tick_s() is None


def test_guest_is_refused_where_nobody_listens(wire: Wire) -> None:
    wire.guest(packet.REQUEST)
    assert wire.hears() == [Packet(HOST_PORT, GUEST_PORT, packet.RST)]


def test_busy_listener_is_tried_again(wire: Wire) -> None:
    wire.listening[HOST_PORT] = None
    wire.guest(packet.REQUEST)
    wire.wait(0.5)
    assert wire.ops() == []
    wire.listening[HOST_PORT] = FakeStream()
    wire.wait(0.5)
    assert wire.ops() == [packet.RESPONSE]


def test_busy_listener_is_given_up(wire: Wire) -> None:
    wire.listening[HOST_PORT] = None
    wire.guest(packet.REQUEST)
    wire.wait(CONNECT_TIMEOUT_S)
    assert wire.ops() == [packet.RST]
    assert len(wire.muxer) == 0


def test_guest_may_take_its_request_back(wire: Wire) -> None:
    wire.listening[HOST_PORT] = None
    wire.guest(packet.REQUEST)
    wire.guest(packet.RST)
    assert len(wire.muxer) == 0
    assert wire.muxer.next_tick_s() is None


def test_connection_1024_is_refused(wire: Wire) -> None:
    for number in range(MAX_CONNECTIONS):
        assert not wire.muxer.full
        wire.muxer.connect(FakeStream(), number, 0)
    assert wire.muxer.full
    wire.hears()
    wire.listening[HOST_PORT] = FakeStream()
    wire.guest(packet.REQUEST)
    assert wire.ops() == [packet.RST]


def test_buffers_shrink_when_many_share(wire: Wire) -> None:
    for number in range(LARGE_BUFFERS + 1):
        wire.muxer.connect(FakeStream(), number, 0)
    assert [found.buf_alloc for found in wire.hears()] == [LARGE_BUFFER] * LARGE_BUFFERS + [SMALL_BUFFER]


# --- strangers


def test_packet_for_nobody_is_reset(wire: Wire) -> None:
    wire.guest(packet.RW, b"x")
    assert wire.hears() == [Packet(HOST_PORT, GUEST_PORT, packet.RST)]


def test_reset_for_nobody_is_left_alone(wire: Wire) -> None:
    wire.guest(packet.RST)
    assert wire.ops() == []


def test_other_socket_types_are_reset(wire: Wire) -> None:
    wire.listening[HOST_PORT] = FakeStream()
    wire.guest(packet.REQUEST, kind=2)
    assert wire.ops() == [packet.RST]


@pytest.mark.parametrize(("src_cid", "dst_cid"), [(4, 2), (3, 5), (2, 2)])
def test_packet_of_or_for_another_machine_is_dropped(wire: Wire, src_cid: int, dst_cid: int) -> None:
    wire.guest(packet.REQUEST, src_cid=src_cid, dst_cid=dst_cid)
    assert wire.ops() == []


def test_resets_do_not_pile_up(wire: Wire) -> None:
    for port in range(MAX_RESETS):
        assert wire.muxer.reset_room == MAX_RESETS - port
        wire.guest(packet.RW, guest_port=port)
    assert wire.muxer.reset_room == 0


def test_pending_reset_does_not_hit_a_new_connection_of_the_port(wire: Wire) -> None:
    wire.guest(packet.RW)
    wire.listening[HOST_PORT] = FakeStream()
    wire.guest(packet.REQUEST)
    assert wire.ops() == [packet.RESPONSE]


@pytest.mark.parametrize("op", [packet.REQUEST, packet.RESPONSE, 0, 8, 0xFFFF])
def test_packet_out_of_place_ends_the_connection(wire: Wire, op: int) -> None:
    stream = FakeStream()
    wire.guest_connects(stream)
    wire.guest(op)
    assert stream.closed
    assert wire.ops() == [packet.RST]


# --- data and credit


def test_guests_bytes_reach_the_host(wire: Wire) -> None:
    stream = FakeStream()
    wire.guest_connects(stream)
    wire.guest(packet.RW, b"hello ")
    wire.guest(packet.RW, b"host")
    assert stream.outbox == b"hello host"


def test_hosts_bytes_reach_the_guest(wire: Wire) -> None:
    stream = FakeStream(b"hello guest")
    wire.host_connects(stream)
    assert [(found.op, found.payload) for found in wire.hears()] == [(packet.RW, b"hello guest")]


def test_hosts_bytes_wait_for_the_guests_answer(wire: Wire) -> None:
    wire.muxer.connect(FakeStream(b"early"), GUEST_PORT, 0)
    assert wire.ops() == [packet.REQUEST]


def test_host_sends_no_more_than_the_guests_credit(wire: Wire) -> None:
    stream = FakeStream(bytes(1000))
    connection = wire.host_connects(stream, credit=300)
    assert [(found.op, len(found.payload)) for found in wire.hears()] == [(packet.RW, 300), (packet.CREDIT_REQUEST, 0)]
    wire.guest(packet.CREDIT_UPDATE, host_port=connection.host_port, credit=300, forwarded=100)
    assert [(found.op, len(found.payload)) for found in wire.hears()] == [(packet.RW, 100), (packet.CREDIT_REQUEST, 0)]
    assert len(stream.inbox) == 600


def test_credit_is_asked_for_once(wire: Wire) -> None:
    connection = wire.host_connects(FakeStream(bytes(10)), credit=0)
    assert wire.ops() == [packet.CREDIT_REQUEST]
    wire.guest(packet.CREDIT_UPDATE, host_port=connection.host_port, credit=0)
    assert wire.ops() == []


def test_guest_whose_counters_lie_gets_nothing(wire: Wire) -> None:
    connection = wire.host_connects(FakeStream(bytes(10)), credit=0)
    wire.guest(packet.CREDIT_UPDATE, host_port=connection.host_port, credit=100, forwarded=50)
    assert packet.RW not in wire.ops()


def test_large_data_is_cut_into_packets(wire: Wire) -> None:
    wire.host_connects(FakeStream(bytes(150_000)))
    assert [len(found.payload) for found in wire.hears()] == [65536, 65536, 150_000 - 2 * 65536]


def test_credit_request_is_answered(wire: Wire) -> None:
    wire.guest_connects(FakeStream())
    wire.guest(packet.RW, bytes(10))
    wire.guest(packet.CREDIT_REQUEST)
    (answer,) = wire.hears()
    assert (answer.op, answer.buf_alloc, answer.fwd_cnt) == (packet.CREDIT_UPDATE, LARGE_BUFFER, 10)


def test_guest_hears_of_credit_when_half_is_used(wire: Wire) -> None:
    wire.guest_connects(FakeStream())
    wire.guest(packet.RW, bytes(LARGE_BUFFER // 2 - 1))
    assert wire.ops() == []
    wire.guest(packet.RW, b"x")
    (update,) = wire.hears()
    assert (update.op, update.fwd_cnt) == (packet.CREDIT_UPDATE, LARGE_BUFFER // 2)


def test_slow_host_gives_no_credit_back_until_it_reads(wire: Wire) -> None:
    stream = FakeStream(room=10)
    connection = wire.guest_connects(stream)
    wire.guest(packet.RW, bytes(LARGE_BUFFER))
    assert (connection.backlog_size, stream.wants_writable) == (LARGE_BUFFER - 10, True)
    assert wire.ops() == []
    stream.room = LARGE_BUFFER
    wire.muxer.on_stream(connection, readable=False, writable=True)
    assert (connection.backlog_size, stream.wants_writable) == (0, False)
    assert wire.ops() == [packet.CREDIT_UPDATE]


def test_bytes_stay_in_order_behind_a_backlog(wire: Wire) -> None:
    stream = FakeStream(room=2)
    connection = wire.guest_connects(stream)
    wire.guest(packet.RW, b"abc")
    stream.room = 100
    wire.guest(packet.RW, b"def")
    wire.muxer.on_stream(connection, readable=False, writable=True)
    assert stream.outbox == b"abcdef"


def test_guest_that_overruns_its_credit_is_cut_off(wire: Wire) -> None:
    stream = FakeStream(room=0)
    wire.guest_connects(stream)
    wire.guest(packet.RW, bytes(LARGE_BUFFER))
    wire.guest(packet.RW, b"x")
    assert wire.ops() == [packet.RST]


def test_connections_take_turns(wire: Wire) -> None:
    streams = [FakeStream(bytes(200_000)), FakeStream(bytes(200_000))]
    ports = [wire.host_connects(stream).host_port for stream in streams[:1]]
    ports.append(wire.muxer.connect(streams[1], GUEST_PORT, 0).host_port)
    first = [wire.muxer.next_packet(0) for _ in range(3)]
    assert [found.op for found in first if found] == [packet.RW, packet.REQUEST, packet.RW]


# --- closing


def test_host_that_stops_writing_can_still_read(wire: Wire) -> None:
    stream = FakeStream(b"last words")
    stream.stopped_writing = True
    connection = wire.host_connects(stream)
    said = [(found.op, found.flags, found.payload) for found in wire.hears()]
    assert said == [(packet.RW, 0, b"last words"), (packet.SHUTDOWN, NO_MORE_SEND, b"")]
    wire.guest(packet.RW, b"answer", host_port=connection.host_port)
    assert stream.outbox.endswith(b"answer")
    wire.wait(60)
    assert not stream.closed


def test_host_that_closes_is_reported_after_its_data(wire: Wire) -> None:
    stream = FakeStream(b"last words")
    stream.left = True
    wire.listening[HOST_PORT] = stream
    wire.guest(packet.REQUEST)
    said = [(found.op, found.flags, found.payload) for found in wire.hears()]
    assert said == [(packet.RESPONSE, 0, b""), (packet.RW, 0, b"last words"), (packet.SHUTDOWN, BOTH_WAYS, b"")]


def test_guest_that_ignores_a_closed_host_is_reset(wire: Wire) -> None:
    stream = FakeStream()
    stream.left = True
    wire.guest_connects(stream)
    wire.wait(SHUTDOWN_TIMEOUT_S)
    assert wire.ops() == [packet.RST]
    assert stream.closed


def test_host_that_stops_writing_and_later_closes(wire: Wire) -> None:
    stream = FakeStream()
    stream.stopped_writing = True
    connection = wire.guest_connects(stream)
    stream.left = True
    wire.muxer.on_stream(connection, readable=True, writable=False)
    assert [(found.op, found.flags) for found in wire.hears()] == [(packet.SHUTDOWN, BOTH_WAYS)]


def test_host_that_stops_reading_still_writes(wire: Wire) -> None:
    stream = FakeStream()
    connection = wire.guest_connects(stream)
    stream.deaf = True
    wire.guest(packet.RW, b"unheard")
    assert [(found.op, found.flags) for found in wire.hears()] == [(packet.SHUTDOWN, NO_MORE_RECEIVE)]
    stream.inbox += b"still talking"
    wire.muxer.on_stream(connection, readable=True, writable=False)
    assert [found.payload for found in wire.hears()] == [b"still talking"]


def test_guest_that_stops_writing_ends_the_hosts_input(wire: Wire) -> None:
    stream = FakeStream()
    connection = wire.guest_connects(stream)
    wire.guest(packet.SHUTDOWN, flags=NO_MORE_SEND)
    assert stream.finished
    stream.inbox += b"more"
    wire.muxer.on_stream(connection, readable=True, writable=False)
    assert [found.payload for found in wire.hears()] == [b"more"]


def test_end_of_input_waits_for_the_backlog(wire: Wire) -> None:
    stream = FakeStream(room=0)
    connection = wire.guest_connects(stream)
    wire.guest(packet.RW, b"late")
    wire.guest(packet.SHUTDOWN, flags=NO_MORE_SEND)
    assert not stream.finished
    stream.room = 100
    wire.muxer.on_stream(connection, readable=False, writable=True)
    assert (bytes(stream.outbox), stream.finished) == (b"late", True)


def test_guest_that_stops_reading_stops_the_host(wire: Wire) -> None:
    stream = FakeStream()
    connection = wire.guest_connects(stream)
    wire.guest(packet.SHUTDOWN, flags=NO_MORE_RECEIVE)
    assert stream.reading_stopped
    stream.inbox += b"unheard"
    wire.muxer.on_stream(connection, readable=True, writable=False)
    assert wire.ops() == []


def test_guest_that_closes_is_answered_at_once(wire: Wire) -> None:
    stream = FakeStream()
    wire.guest_connects(stream)
    wire.guest(packet.SHUTDOWN, flags=BOTH_WAYS)
    assert wire.ops() == [packet.RST]
    assert stream.closed
    assert len(wire.muxer) == 0


@pytest.mark.parametrize("goodbye", [packet.SHUTDOWN, packet.RST])
def test_slow_host_gets_what_a_gone_guest_wrote(wire: Wire, goodbye: int) -> None:
    stream = FakeStream(room=3)
    connection = wire.guest_connects(stream)
    wire.guest(packet.RW, b"legacy")
    wire.guest(goodbye, flags=BOTH_WAYS)
    wire.wait(60)
    assert (stream.closed, len(wire.muxer)) == (False, 1)
    stream.room = 100
    wire.muxer.on_stream(connection, readable=False, writable=True)
    assert (bytes(stream.outbox), stream.closed, len(wire.muxer)) == (b"legacy", True, 0)


def test_host_that_leaves_a_legacy_behind_is_forgotten(wire: Wire) -> None:
    stream = FakeStream(room=0)
    connection = wire.guest_connects(stream)
    wire.guest(packet.RW, b"legacy")
    wire.guest(packet.RST)
    stream.left = True
    wire.muxer.on_stream(connection, readable=True, writable=True)
    assert (stream.closed, len(wire.muxer)) == (True, 0)


def test_writing_after_shutdown_ends_the_connection(wire: Wire) -> None:
    wire.guest_connects(FakeStream())
    wire.guest(packet.SHUTDOWN, flags=NO_MORE_SEND)
    wire.guest(packet.RW, b"x")
    assert wire.ops() == [packet.RST]


def test_new_driver_knows_no_connection(wire: Wire) -> None:
    streams = [FakeStream(), FakeStream()]
    wire.guest_connects(streams[0])
    wire.muxer.connect(streams[1], 1, 0)
    wire.muxer.reset()
    assert all(stream.closed for stream in streams)
    assert wire.ops() == []
    assert wire.muxer.next_tick_s() is None


def test_end_of_the_machine_closes_everything(wire: Wire) -> None:
    stream = FakeStream(room=0)
    wire.guest_connects(stream)
    wire.guest(packet.RW, b"never read")
    wire.muxer.close()
    assert (stream.closed, len(wire.muxer)) == (True, 0)


# --- anything at all

steps = st.lists(
    st.tuples(
        st.sampled_from(["guest", "hear", "tick", "connect", "stream", "host says", "host ends", "host leaves"]),
        st.integers(0, 9),
        st.integers(0, 4),
        st.integers(0, 1 << 32),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=300, deadline=1000)
def test_any_sequence_keeps_the_muxer_whole(sequence: list[tuple[str, int, int, int]]) -> None:
    wire = Wire()
    streams = {port: FakeStream(room=10) for port in range(3)}
    wire.listening.update(streams)
    opened: list[tuple[Connection, FakeStream]] = []
    for kind, op, port, number in sequence:
        act(wire, opened, kind, op, port, number)
        assert wire.muxer.reset_room > 0
        assert sum(connection.backlog_size for connection in wire.muxer._connections.values()) <= 60 * 65536
    wire.muxer.close()
    assert len(wire.muxer) == 0
    assert not wire.muxer._host_ports
    assert all(stream.closed for _, stream in opened)


def act(wire: Wire, opened: list[tuple[Connection, FakeStream]], kind: str, op: int, port: int, number: int) -> None:
    """One step of a random story."""
    if kind == "connect":
        stream = FakeStream(bytes(number % 1000), room=number % 100)
        opened.append((wire.muxer.connect(stream, port, wire.now_s), stream))
    elif kind == "hear":
        wire.hears()
    elif kind == "tick":
        wire.wait(number % 3)
    elif kind == "guest":
        host_port = port if number % 2 or not opened else opened[-1][0].host_port
        wire.listening[host_port] = FakeStream(room=10)
        size = number % 65536 if op == packet.RW else 0
        wire.guest(op, bytes(size), host_port=host_port, guest_port=port, flags=number % 4, credit=number & 0xFFFFFFFF)
    elif opened:
        connection, stream = opened[number % len(opened)]
        stream.inbox += b"x" * 100 if kind == "host says" else b""
        stream.stopped_writing |= kind == "host ends"
        stream.left |= kind == "host leaves"
        wire.muxer.on_stream(connection, readable=bool(op % 2), writable=bool(number % 2))
