"""Dialled ports, against the checked agent: TCP on its own loopback."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from agent_rig import Agent

from firkin.agent.messages import ExitStatus
from firkin.errors import AgentError
from firkin.host.wait import wait_until

pytestmark = pytest.mark.live

Talk = Callable[[socket.socket], None]


@contextmanager
def listening(talk: Talk, *, address: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server that has one talk and hangs up."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:

        def serve() -> None:
            with closing(server.accept()[0]) as sock:
                talk(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join(20)
            assert not thread.is_alive()


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def echo_all_at_once(sock: socket.socket) -> None:
    sock.sendall(read_to_end(sock))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_is_reached_and_half_closed(agent: Agent, address: str) -> None:
    with listening(echo_all_at_once, address=address) as port, agent.connect() as guest, guest.dial(port) as dialled:
        assert dialled.pid == 0
        assert dialled.result(stdin=b"hello").stdout == b"hello"
        assert dialled.status == ExitStatus(code=0)


def test_megabytes_pass_both_ways_at_once(agent: Agent) -> None:
    data, received = os.urandom(5_000_000), list[bytes]()

    def talk(sock: socket.socket) -> None:
        reader = threading.Thread(target=lambda: received.append(read_to_end(sock)))
        reader.start()
        sock.sendall(data)
        reader.join(20)

    with listening(talk) as port, agent.connect() as guest, guest.dial(port) as dialled:
        said = dialled.result(stdin=data).stdout
    assert [hashlib.sha256(piece).digest() for piece in (said, *received)] == [hashlib.sha256(data).digest()] * 2


def test_a_peer_that_hangs_up_ends_it(agent: Agent) -> None:
    with listening(lambda sock: sock.sendall(b"bye")) as port, agent.connect() as guest, guest.dial(port) as dialled:
        assert b"".join(output.data for output in dialled) == b"bye"
        assert dialled.status == ExitStatus(code=0)


def test_what_the_peer_has_not_read_is_still_sent_when_it_has_said_its_last(agent: Agent) -> None:
    gate, received = threading.Event(), list[bytes]()

    def talk(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        gate.wait(20)
        received.append(read_to_end(sock))

    with listening(talk) as port, agent.connect() as guest, guest.dial(port) as dialled:
        dialled.write(bytes(60_000))
        gate.set()
        assert dialled.wait(20) == ExitStatus(code=0)
    assert received in ([bytes(60_000)], [b""])  # nothing in halves


def test_a_port_without_a_listener_is_told(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with agent.connect() as guest:
        with pytest.raises(AgentError, match="Connection refused"):
            guest.dial(port)
        with pytest.raises(AgentError, match="makes no sense"):
            guest.dial(0)
        assert guest.run("echo", "next").stdout == b"next\n"


def test_a_slow_peer_slows_us_and_nobody_else(agent: Agent) -> None:
    gate = threading.Event()

    def talk(sock: socket.socket) -> None:
        gate.wait(20)
        read_to_end(sock)

    with listening(talk) as port, agent.connect() as guest, guest.dial(port) as dialled:
        with pytest.raises(TimeoutError, match="does not read"):
            dialled.write(bytes(50_000_000), timeout_s=1)
        assert guest.run("echo", "fine").stdout == b"fine\n"
        gate.set()


def test_a_slow_reader_slows_the_peer_and_nobody_else(agent: Agent) -> None:
    stopped = threading.Event()

    def talk(sock: socket.socket) -> None:
        sock.settimeout(1)
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(50_000_000))
        stopped.set()

    with listening(talk) as port, agent.connect() as guest, guest.dial(port):
        assert stopped.wait(20)
        assert guest.run("echo", "fine").stdout == b"fine\n"


def test_being_done_with_it_hangs_up(agent: Agent) -> None:
    received: list[bytes] = []
    with listening(lambda sock: received.append(read_to_end(sock))) as port, agent.connect() as guest:
        with guest.dial(port) as dialled:
            dialled.write(b"half a")
        assert wait_until(lambda: received == [b"half a"], timeout_s=20)
        guest.run("true")  # hears of the end that came before
        assert guest.running == 0
