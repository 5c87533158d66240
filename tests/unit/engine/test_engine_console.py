from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

from firkin.engine.console import Console
from firkin.engine.limiter import Bucket
from firkin.engine.loop import Loop
from firkin.fcapi.limits import TokenBucket


def test_an_end_of_input_does_not_end_the_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"typed")
    ours, guest = socket.socketpair()
    stdin = os.open(tmp_path / "in", os.O_RDONLY)
    stdout = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    loop = Loop()
    console = Console(loop, ours, stdin=stdin, stdout=stdout)
    loop.later(0.01, lambda: guest.sendall(b"said "))
    loop.later(0.02, lambda: loop.stop(0))
    loop.run()
    assert guest.recv(100) == b"typed"
    guest.sendall(b"at last")
    guest.close()
    console.drain()
    console.close()
    assert (tmp_path / "out").read_bytes() == b"said at last"
    for fd in (stdin, stdout):
        os.close(fd)


def test_a_reader_that_stopped_reading_holds_the_guest_back() -> None:
    ours, guest = socket.socketpair()
    stdin = os.open(os.devnull, os.O_RDONLY)
    out, into = os.pipe()
    loop = Loop()
    console = Console(loop, ours, stdin=stdin, stdout=into)
    guest.setblocking(False)
    sent = 0

    def talk() -> None:
        nonlocal sent
        try:
            while True:
                sent += guest.send(b"x" * 1000)
        except BlockingIOError:
            loop.later(0.005, talk)

    loop.later(0, talk)
    loop.later(0.15, lambda: loop.stop(0))
    loop.run()
    assert 65536 <= sent < 2_000_000
    assert os.get_blocking(into)  # the flag is shared with others: it must stay
    console.close()
    guest.close()
    for fd in (stdin, out, into):
        os.close(fd)


def test_a_reader_that_never_comes_back_stops_no_guest_and_one_that_does_hears_it_again() -> None:
    ours, guest = socket.socketpair()
    out, into = os.pipe()
    loop = Loop()
    console = Console(loop, ours, stdin=-1, stdout=into, patience_s=0.02)
    guest.setblocking(False)
    sent = 0

    def talk() -> None:
        nonlocal sent
        try:
            while sent < 4_000_000:
                sent += guest.send(b"x" * 1000)
        except BlockingIOError:
            loop.later(0.001, talk)
        else:
            loop.later(0.1, speak)

    def speak() -> None:
        os.read(out, 1 << 20)
        guest.send(b"heard")
        loop.later(0.1, lambda: loop.stop(0))

    loop.later(0, talk)
    loop.run()
    assert sent == 4_000_000
    assert os.read(out, 1 << 20) == b"heard"
    assert console.written_bytes < 1_000_000
    console.close()
    for fd in (guest.detach(), out, into):
        os.close(fd)


def test_what_exceeds_the_limit_is_dropped(tmp_path: Path) -> None:
    ours, guest = socket.socketpair()
    stdout = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    loop = Loop()
    bucket = Bucket(TokenBucket(size=8, refill_time=10**6))
    console = Console(loop, ours, bucket, stdin=-1, stdout=stdout)
    for at, text in enumerate((b"hello", b" world", b"!")):
        loop.later(0.01 * at, partial(guest.sendall, text))
    loop.later(0.05, lambda: loop.stop(0))
    loop.run()
    assert (tmp_path / "out").read_bytes() == b"hello wo"
    assert (console.written_bytes, console.dropped_bytes) == (8, 4)
    console.close()
    guest.close()
    os.close(stdout)
