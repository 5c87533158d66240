from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin.engine.faults import Fault
from firkin.engine.limiter import Bucket
from firkin.engine.loop import Loop
from firkin.engine.resources.serial import SerialPort
from firkin.engine.serial_out import SerialOut
from firkin.fcapi.limits import TokenBucket
from firkin.fcapi.serial import Serial


@pytest.fixture
def port() -> Iterator[SerialPort]:
    port = SerialPort()
    yield port
    port.close()


def opened(port: SerialPort, path: Path) -> int:
    port.put(Serial(serial_out_path=str(path)))
    port.open()
    output = port.take_output()
    assert output is not None
    return output


def say(loop: Loop, guest: socket.socket, data: bytes) -> None:
    guest.sendall(data)
    loop.later(0.02, lambda: loop.stop(0))
    loop.run()


def test_without_a_path_it_is_ours(port: SerialPort) -> None:
    port.open()
    assert port.is_terminal
    assert port.take_output() is None


def test_a_file_that_cannot_be_made_fails_the_start(port: SerialPort) -> None:
    port.put(Serial(serial_out_path="/nonexistent/file"))
    with pytest.raises(Fault, match=r"^Start microvm error: .*No such file or directory \(os error 2\)$"):
        port.open()


def test_what_the_guest_says_is_written_up_to_the_limit(port: SerialPort, tmp_path: Path) -> None:
    loop, (ours, theirs) = Loop(), socket.socketpair()
    bucket = Bucket(TokenBucket(size=5, refill_time=10**6))
    out = SerialOut(loop, ours, opened(port, tmp_path / "new"), bucket)
    with theirs:
        say(loop, theirs, b"hello world")
        assert (out.written_bytes, out.dropped_bytes) == (5, 6)
        theirs.sendall(b"more")
        out.drain()
        out.close()
        out.close()
    assert (tmp_path / "new").read_bytes() == b"hello"
    assert out.dropped_bytes == 10


def test_a_pipe_that_nobody_reads_stops_nothing(port: SerialPort, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    loop, (ours, theirs) = Loop(), socket.socketpair()
    out = SerialOut(loop, ours, opened(port, tmp_path / "pipe"), Bucket(None))
    with theirs:
        theirs.setblocking(False)
        for _ in range(40):
            theirs.sendall(bytes(4096))
            out.drain()
        assert out.written_bytes == 65536
        assert out.dropped_bytes == 40 * 4096 - 65536
    out.close()
