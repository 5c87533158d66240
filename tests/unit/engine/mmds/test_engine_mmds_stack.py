"""The service's own network stack, against a guest that is polite, one on a bad line, and one that is hostile."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmds_guest import ACK, FIN, MAC, RST, SERVICE, SERVICE_MAC, SYN, Client, Heard, arp_request, ip, tcp

from firkin.engine.mmds.connection import BURST, RECEIVE_SIZE
from firkin.engine.mmds.service import Mmds
from firkin.engine.mmds.stack import MAX_CONNECTIONS, SILENCE_S, NetworkStack, stack_for
from firkin.fcapi.mmds import MmdsConfig

REQUEST = b"GET /big HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"
SMALL = b"GET /small HTTP/1.1\r\n\r\n"


def service(size: int = 20000) -> Mmds:
    mmds = Mmds("vm", 10**6)
    mmds.store.put({"big": "x" * size, "small": "s"})
    return mmds


def reply_to(mmds: Mmds, request: bytes) -> bytes:
    return mmds.answer(request)


def talk(stack: NetworkStack, *frames: bytes, now_s: float = 1.0) -> list[Heard]:
    for frame in frames:
        assert stack.detour(frame, partial_checksum=False)
    return [Heard(frame) for frame in stack.poll(now_s)]


def established(stack: NetworkStack, port: int = 40000, *, window: int = 64240, now_s: float = 1.0) -> Heard:
    """Shake hands from sequence number 0; the service's SYN."""
    [answer] = talk(stack, tcp(SYN, 0, port=port, window=window), now_s=now_s)
    assert talk(stack, tcp(ACK, 1, answer.seq + 1, port=port, window=window), now_s=now_s) == []
    return answer


def test_arp_is_answered_for_the_service_only() -> None:
    stack = NetworkStack(service())
    assert not stack.detour(arp_request(bytes((169, 254, 1, 1))), partial_checksum=False)
    assert stack.detour(arp_request(), partial_checksum=False)
    assert stack.next_tick_s() is not None
    [reply] = stack.poll(1.0)
    assert reply[:14] == MAC + SERVICE_MAC + b"\x08\x06"
    assert reply[20:22] == b"\0\x02"
    assert reply[22:32] == SERVICE_MAC + SERVICE
    assert stack.next_tick_s() is None


@pytest.mark.parametrize("frame", [b"", b"\0" * 13, b"\0" * 60, ip(b"", target=bytes(4)), arp_request()[:30]])
def test_other_frames_are_not_taken(frame: bytes) -> None:
    stack = NetworkStack(service())
    assert not stack.detour(frame, partial_checksum=False)
    assert stack.poll(1.0) == []


def test_only_listed_interfaces_have_the_service() -> None:
    mmds = service()
    assert stack_for(None, "eth0") is None
    assert stack_for(mmds, "eth0") is None
    mmds.config = MmdsConfig(network_interfaces=("eth0",))
    assert stack_for(mmds, "eth0") is not None
    assert stack_for(mmds, "eth1") is None


def test_a_configured_address_is_the_only_one() -> None:
    mmds = service()
    mmds.config = MmdsConfig(network_interfaces=("eth0",), ipv4_address="169.254.170.2")
    stack = NetworkStack(mmds)
    assert not stack.detour(arp_request(), partial_checksum=False)
    assert stack.detour(arp_request(bytes((169, 254, 170, 2))), partial_checksum=False)


def test_requests_are_answered_one_after_the_other_over_one_connection() -> None:
    mmds = service()
    client = Client(NetworkStack(mmds))
    client.connect()
    expected = reply_to(mmds, REQUEST) + reply_to(mmds, SMALL)
    client.send(REQUEST + SMALL)
    assert client.await_bytes(len(expected)) == expected
    client.close()
    assert client.ended
    assert not client.refused
    assert (mmds.metrics.connections_created, mmds.metrics.connections_destroyed) == (1, 1)
    assert (mmds.metrics.rx_accepted_err, mmds.metrics.rx_accepted_unusual) == (0, 0)
    assert client.stack.next_tick_s() is None


def test_pipelined_requests_beyond_the_window_are_all_answered() -> None:
    mmds = service(100)
    client = Client(NetworkStack(mmds))
    client.connect()
    count = 300
    client.send(SMALL * count)
    expected = reply_to(mmds, SMALL) * count
    assert client.await_bytes(len(expected)) == expected


def test_syn_is_answered_with_mss_and_small_window() -> None:
    answer = established(NetworkStack(service()))
    assert answer.flags == SYN | ACK
    assert answer.ack == 1
    assert answer.window == RECEIVE_SIZE
    assert answer.options == struct.pack("!BBH", 2, 4, 1460)


def test_segments_are_no_longer_than_the_guests_mss() -> None:
    stack = NetworkStack(service())
    [answer] = talk(stack, tcp(SYN, 0, options=struct.pack("!BBHBB", 2, 4, 500, 1, 0) + b"\0\0"))
    heard = talk(stack, tcp(ACK, 1, answer.seq + 1, REQUEST))
    assert {len(each.payload) for each in heard} == {500}
    assert len(heard) == BURST


def test_no_more_is_sent_than_the_guests_window() -> None:
    stack = NetworkStack(service())
    answer = established(stack, window=700)
    heard = talk(stack, tcp(ACK, 1, answer.seq + 1, REQUEST, window=700))
    assert b"".join(each.payload for each in heard) == reply_to(service(), REQUEST)[:700]
    assert talk(stack, tcp(ACK, 1 + len(REQUEST), answer.seq + 701, window=0)) == []
    # A closed window is asked about with one byte, until it opens.
    asked_s = stack.next_tick_s()
    assert asked_s is not None
    assert [len(each.payload) for each in talk(stack, now_s=asked_s)] == [1]
    more = talk(stack, tcp(ACK, 1 + len(REQUEST), answer.seq + 701, window=300), now_s=asked_s)
    assert b"".join(each.payload for each in more) == reply_to(service(), REQUEST)[701:1000]


def test_an_answer_nobody_acknowledges_is_sent_again_and_given_up() -> None:
    mmds = service()
    stack = NetworkStack(mmds)
    talk(stack, tcp(SYN, 0))
    heard: list[int] = []
    waits: list[float] = []
    now_s = 1.0
    while (tick_s := stack.next_tick_s()) is not None:
        waits.append(round(tick_s - now_s, 3))
        now_s = tick_s
        heard += [each.flags for each in talk(stack, now_s=now_s)]
    assert heard == [SYN | ACK] * 15 + [RST | ACK]
    assert waits == [0.3, 0.6, 1.2] + [2.4] * 13
    assert mmds.metrics.connections_destroyed == 1


def test_three_duplicate_acknowledgements_are_a_loss() -> None:
    stack = NetworkStack(service())
    answer = established(stack)
    first = talk(stack, tcp(ACK, 1, answer.seq + 1, REQUEST))[0]
    again = tcp(ACK, 1 + len(REQUEST), answer.seq + 1)
    assert talk(stack, again, again) == []
    assert talk(stack, again)[0].payload == first.payload


def test_a_partial_checksum_is_taken_when_told_so() -> None:
    mmds = service()
    stack = NetworkStack(mmds)
    frame = tcp(SYN, 0, checksum=0x1234)
    assert stack.detour(frame, partial_checksum=False)
    assert stack.poll(1.0) == []
    assert mmds.metrics.rx_accepted_err == 1
    assert stack.detour(frame, partial_checksum=True)
    assert len(stack.poll(1.0)) == 1


def test_a_request_longer_than_the_buffer_resets_the_connection() -> None:
    stack = NetworkStack(service())
    answer = established(stack)
    long = b"GET /" + b"x" * 5000
    heard = talk(stack, tcp(ACK, 1, answer.seq + 1, long))
    assert [each.flags for each in heard] == [RST | ACK]
    assert stack.next_tick_s() is None


def test_the_31st_connection_is_refused_until_another_was_silent_for_long() -> None:
    mmds = service()
    stack = NetworkStack(mmds)
    for port in range(MAX_CONNECTIONS):
        established(stack, port)
    [refusal] = talk(stack, tcp(SYN, 0, port=5000), now_s=1.0 + SILENCE_S)
    assert (refusal.port, refusal.flags, refusal.ack) == (5000, RST | ACK, 1)
    heard = talk(stack, tcp(SYN, 0, port=5000), now_s=1.1 + SILENCE_S)
    assert [(each.port, each.flags) for each in heard] == [(0, RST | ACK), (5000, SYN | ACK)]
    assert mmds.metrics.connections_created == MAX_CONNECTIONS + 1
    assert mmds.metrics.connections_destroyed == 1


def test_segments_of_no_connection_are_reset() -> None:
    stack = NetworkStack(service())
    [refusal] = talk(stack, tcp(ACK, 5, 77, b"hello"))
    assert (refusal.flags, refusal.seq) == (RST, 77)
    [refusal] = talk(stack, tcp(FIN, 5))
    assert (refusal.flags, refusal.ack) == (RST | ACK, 6)
    assert talk(stack, tcp(RST, 5)) == []


def test_a_reset_counts_only_inside_the_window() -> None:
    mmds = service()
    stack = NetworkStack(mmds)
    established(stack)
    talk(stack, tcp(RST, 0))
    talk(stack, tcp(RST, 1 + RECEIVE_SIZE))
    assert mmds.metrics.connections_destroyed == 0
    talk(stack, tcp(RST, 1))
    assert mmds.metrics.connections_destroyed == 1


def test_a_guest_that_begins_anew_on_the_same_port_is_welcome() -> None:
    mmds = service()
    stack = NetworkStack(mmds)
    established(stack)
    [again] = talk(stack, tcp(SYN, 0))  # a late copy of the first SYN
    assert again.flags == ACK
    [new] = talk(stack, tcp(SYN, 9000))
    assert (new.flags, new.ack) == (SYN | ACK, 9001)
    assert (mmds.metrics.connections_created, mmds.metrics.connections_destroyed) == (2, 1)


def test_a_keepalive_is_answered() -> None:
    stack = NetworkStack(service())
    answer = established(stack)
    [alive] = talk(stack, tcp(ACK, 0, answer.seq + 1))
    assert (alive.flags, alive.ack, alive.payload) == (ACK, 1, b"")


def test_what_waits_is_bounded() -> None:
    mmds = service()
    stack = NetworkStack(mmds)
    for port in range(2000):
        assert stack.detour(tcp(ACK, 1, 1, b"x" * 1400, port=port), partial_checksum=False)
        assert stack.detour(arp_request(), partial_checksum=False)
    assert len(stack.poll(1.0)) == 100
    assert mmds.metrics.tx_errors == 2000 - 100 + 256
    assert mmds.metrics.rx_accepted_err == 2000 - 256


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (ip(b"x" * 8, protocol=17), "rx_accepted_unusual"),
        (ip(b"x" * 19), "rx_accepted_err"),
        (tcp(SYN, 0, target_port=81), "rx_accepted_err"),
        (tcp(SYN, 0)[:-1], "rx_accepted_err"),
        (ip(b"", flags=0x2000), "rx_accepted_err"),
        (tcp(SYN, 0, options=b"\x02\x03\0\0"), "rx_accepted_err"),
        (tcp(SYN, 0, options=b"\x05\x09\0\0"), "rx_accepted_err"),
        (tcp(SYN, 0)[:24] + b"\xff\xff" + tcp(SYN, 0)[26:], "rx_accepted_err"),
    ],
)
def test_malformed_frames_for_the_service_are_dropped_and_counted(frame: bytes, counter: str) -> None:
    mmds = service()
    stack = NetworkStack(mmds)
    assert stack.detour(frame, partial_checksum=False)
    assert stack.poll(1.0) == []
    assert getattr(mmds.metrics, counter) == 1
    assert mmds.metrics.rx_accepted == 1


class BadLine:
    """Loses, repeats and mixes up, but not for ever the same."""

    def __init__(self, seed: int, loss: float, copies: float) -> None:
        self._random, self._loss, self._copies = random.Random(seed), loss, copies

    def __call__(self, frames: list[bytes]) -> list[bytes]:
        out = [frame for frame in frames if self._random.random() >= self._loss]
        out += [frame for frame in out if self._random.random() < self._copies]
        if self._random.random() < 0.5:
            self._random.shuffle(out)
        return out


@settings(max_examples=60, deadline=None)
@given(st.integers(), st.floats(0, 0.3), st.floats(0, 0.5), st.integers(0, 2**32 - 1), st.integers(0, 30000))
def test_a_bad_line_changes_no_answer(seed: int, loss: float, copies: float, seq: int, size: int) -> None:
    mmds = service(size)
    client = Client(NetworkStack(mmds), line=BadLine(seed, loss, copies), seq=seq)
    client.connect()
    expected = reply_to(mmds, REQUEST) + reply_to(mmds, SMALL) * 3
    client.send(REQUEST + SMALL * 3)
    assert client.await_bytes(len(expected)) == expected
    assert not client.refused


HOSTILE = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=80).map(lambda data: SERVICE_MAC + MAC + b"\x08\x00" + data),
    st.binary(max_size=40).map(ip),
    st.binary(max_size=40).map(lambda data: SERVICE_MAC + MAC + b"\x08\x06" + data),
    st.builds(
        tcp,
        st.integers(0, 63),
        st.integers(0, 2**32 - 1) | st.integers(0, 60),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=30) | st.just(SMALL) | st.just(b"x" * 3000),
        port=st.integers(1, 40),
        window=st.sampled_from([0, 1, 500, 65535]),
        options=st.sampled_from(
            [b"", b"\x02\x04\0\0", b"\x02\x04\xff\xff", b"\1\1\1\0", b"\x03\x03\x07\0", b"\xff\xff\0\0"]
        ),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(HOSTILE, st.booleans(), st.floats(0, 5)), max_size=40))
def test_no_frames_disturb_the_stack(attack: list[tuple[bytes, bool, float]]) -> None:
    mmds = service(1000)
    stack = NetworkStack(mmds)
    now_s = 0.0
    for frame, partial, step_s in attack:
        now_s += step_s
        stack.detour(frame, partial_checksum=partial)
        if step_s > 1:
            for sent in stack.poll(now_s):
                assert len(sent) <= 1514
            tick_s = stack.next_tick_s()
            assert tick_s is None or tick_s > now_s
    created, destroyed = mmds.metrics.connections_created, mmds.metrics.connections_destroyed
    assert 0 <= created - destroyed <= MAX_CONNECTIONS
    stack.poll(now_s)
    client = Client(stack, port=50000)
    client.now_s = now_s + SILENCE_S + 1
    client.connect()
    client.send(SMALL)
    assert client.await_bytes(len(reply_to(mmds, SMALL))) == reply_to(mmds, SMALL)


LIE = st.tuples(
    st.integers(0, 31),
    st.integers(-10, 2600),
    st.integers(-3, 3) | st.integers(0, 30000),
    st.sampled_from([b"", b"x", SMALL, SMALL[:9], SMALL[9:], REQUEST, b"x" * 1500]),
    st.sampled_from([0, 1, 1000, 65535]),
    st.sampled_from([0.0, 0.01, 0.4, 3.0]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LIE, max_size=30))
def test_a_guest_that_lies_about_numbers_gets_no_more_than_a_burst(
    lies: list[tuple[int, int, int, bytes, int, float]],
) -> None:
    mmds = service(5000)
    stack = NetworkStack(mmds)
    answer = established(stack)
    now_s = 1.0
    for flags, seq, ack, payload, window, step_s in lies:
        heard = talk(stack, tcp(flags, 1 + seq, answer.seq + 1 + ack, payload, window=window), now_s=now_s)
        assert sum(len(each.payload) for each in heard) <= BURST * 1460
        assert len(heard) <= BURST * 3
        tick_s = stack.next_tick_s()
        assert tick_s is None or tick_s > now_s
        now_s += step_s
    for _ in range(40):
        tick_s = stack.next_tick_s()
        if tick_s is None:
            break
        talk(stack, now_s=tick_s)
    else:
        raise AssertionError("it never gives up")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_conversation_with_flipped_bytes_only_ends_sooner(data: st.DataObject) -> None:
    """Every frame of a valid conversation, with bytes changed; with `partial_checksum` no checksum catches it."""

    def flip(frames: list[bytes]) -> list[bytes]:
        out = []
        for frame in frames:
            place = data.draw(st.integers(14, len(frame) - 1))
            out.append(frame[:place] + data.draw(st.binary(min_size=1, max_size=1)) + frame[place + 1 :])
        return out

    stack = NetworkStack(service(100))
    [answer] = talk(stack, tcp(SYN, 0))
    conversation = [tcp(ACK, 1, answer.seq + 1, SMALL), tcp(ACK | FIN, 1 + len(SMALL), answer.seq + 10)]
    for frame in flip(conversation):
        stack.detour(frame, partial_checksum=True)
    stack.poll(2.0)
    while (tick_s := stack.next_tick_s()) is not None:
        stack.poll(tick_s)
