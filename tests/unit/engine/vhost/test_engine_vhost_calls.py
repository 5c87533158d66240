"""What passes between QEMU's library and the engine."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from firkin.engine.vhost import Trap, calls, descriptors
from firkin.engine.vhost.calls import Call
from firkin.errors import EngineError


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_a_call_comes_and_its_answer_goes() -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.send(struct.pack("<iIQ", 7, 0x4008AF00, 1 << 47))
        assert calls.receive(ours) == Call(7, 0x4008AF00, 1 << 47)
        calls.respond(ours, 22)
        assert struct.unpack("<i", theirs.recv(64)) == (22,)


def test_the_end_of_qemu_is_no_call_and_needs_no_answer() -> None:
    ours, theirs = pair()
    with ours:
        theirs.close()
        assert calls.receive(ours) is None
        calls.respond(ours, 0)


@pytest.mark.parametrize("size", [1, 15, 17, 4096])
def test_what_no_library_says_is_an_error(size: int) -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.send(bytes(size))
        with pytest.raises(OSError, match="another language"):
            calls.receive(ours)


def test_a_trap_for_nobody_is_an_error() -> None:
    trap = Trap([])
    with pytest.raises(EngineError, match="No such process"):
        trap.attach(1 << 22, [])
    trap.close()


def test_only_eventfds_become_doorbells() -> None:
    pidfd = os.pidfd_open(os.getpid())
    bell = os.eventfd(0)
    copy = descriptors.fetch_eventfd(pidfd, bell)
    assert not os.get_blocking(copy)
    with pytest.raises(OSError, match="not an eventfd"):
        descriptors.fetch_eventfd(pidfd, pidfd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        descriptors.fetch_eventfd(pidfd, 9999)
    for fd in (copy, bell, pidfd):
        os.close(fd)
