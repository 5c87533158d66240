"""Waiting for a guest's call: bounded in time and bytes, whoever calls."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin.agent.hello import HelloListener
from firkin.agent.messages import Hello
from firkin.errors import AgentError, BootTimeout, HostError
from firkin.host.unix import connect_unix

HELLO = Hello(pid=2, ready_ms=250, hostname="web")


def call(path: Path, *pieces: bytes, pause_s: float = 0.0) -> threading.Thread:
    """Connect and say `pieces`, as a guest would through its VMM."""

    def talk() -> None:
        with connect_unix(path, 5.0) as sock:
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(pause_s)

    thread = threading.Thread(target=talk)
    thread.start()
    return thread


def test_a_hello_in_pieces_is_heard(tmp_path: Path) -> None:
    wire = HELLO.encode()
    with HelloListener(tmp_path / "v.sock") as listener:
        assert listener.path == tmp_path / "v.sock_1023"
        guest = call(listener.path, wire[:5], wire[5:20], wire[20:], pause_s=0.01)
        assert listener.wait(5.0, lambda: True) == HELLO
        guest.join()
    assert not listener.path.exists()


def test_garbage_before_the_hello_does_not_matter(tmp_path: Path) -> None:
    with HelloListener(tmp_path / "v.sock") as listener:
        guests = [call(listener.path, b"GET / HTTP/1.1\r\n\r\n"), call(listener.path)]
        for guest in guests:
            guest.join()
        guests.append(call(listener.path, HELLO.encode()))
        assert listener.wait(5.0, lambda: True) == HELLO
        guests[-1].join()


def test_silence_ends_in_boot_timeout_that_names_the_last_fault(tmp_path: Path) -> None:
    with HelloListener(tmp_path / "v.sock") as listener:
        guest = call(listener.path, b"x" * 40)
        with pytest.raises(BootTimeout, match=r"within 0\.2 s \(last call: agent: not a frame"):
            listener.wait(0.2, lambda: True)
        guest.join()


def test_a_dead_machine_is_not_waited_for(tmp_path: Path) -> None:
    with HelloListener(tmp_path / "v.sock") as listener, pytest.raises(AgentError, match="ended before"):
        listener.wait(60.0, lambda: False)


def test_paths_longer_than_a_socket_name_work(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with HelloListener(deep / "v.sock") as listener:
        guest = call(listener.path, HELLO.encode())
        assert listener.wait(5.0, lambda: True).hostname == "web"
        guest.join()


def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    HelloListener(tmp_path / "v.sock")._server.close()  # type: ignore[union-attr] # died without removing its socket
    HelloListener(tmp_path / "v.sock").close()
    (tmp_path / "w.sock_1023").write_text("precious")
    with pytest.raises(HostError, match="cannot listen"):
        HelloListener(tmp_path / "w.sock")
    assert (tmp_path / "w.sock_1023").read_text() == "precious"


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> object:
    """Each test closes what it opened."""
    count: Callable[[], int] = lambda: len(os.listdir("/proc/self/fd"))  # noqa: E731, PTH208 - one expression, and no Path
    before = count()
    yield
    assert count() <= before
