"""The filter's program, and what passes between the processes on both sides of it."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from firkin.engine.vhost import Trap, seccomp
from firkin.errors import EngineError

ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
X86_64, ARM64 = 0xC000003E, 0xC00000B7


def test_child_that_dies_early_is_reported() -> None:
    trap = Trap([])
    with pytest.raises(EngineError, match="ended before"):
        trap.attach(os.getpid())
    trap.close()


def verdict(program: bytes, **data: int) -> int:
    """Run a filter on one system call, as the kernel would."""
    call = struct.pack(
        "<iIQ6Q", data["nr"], data["arch"], 0, data.get("fd", 7), data.get("request", 0x4008AF00), 0, 0, 0, 0
    )
    accumulator, at = 0, 0
    while True:
        code, jump_true, jump_false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", call, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            at += jump_true if accumulator == value else jump_false
        else:
            assert code == 0x06
            return int(value)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"nr": 16, "arch": X86_64}, NOTIFY),
        ({"nr": 16, "arch": X86_64, "request": 0xAF01}, NOTIFY),
        ({"nr": 16, "arch": X86_64, "request": 0x5413}, ALLOW),
        ({"nr": 16, "arch": X86_64, "request": 0x5451}, ALLOW),
        ({"nr": 16, "arch": X86_64, "request": 0x800454D2}, NOTIFY),
        ({"nr": 16, "arch": X86_64, "request": 0x400454D0}, NOTIFY),
        ({"nr": 16, "arch": X86_64, "fd": 5}, NOTIFY),
        ({"nr": 16, "arch": X86_64, "fd": 8}, ALLOW),
        ({"nr": 1, "arch": X86_64}, ALLOW),
        ({"nr": 16, "arch": ARM64}, ALLOW),
    ],
)
def test_filter_traps_vhost_and_tun_ioctls_on_its_descriptors_only(call: dict[str, int], expected: int) -> None:
    assert verdict(seccomp.build_filter((5, 7)), **call) == expected


def test_descriptor_passes_between_processes() -> None:
    one, other = socket.socketpair()
    with one, other:
        seccomp.send_fd(one, 0)
        fd = seccomp.receive_fd(other)
        assert fd is not None
        assert os.fstat(fd).st_ino == os.fstat(0).st_ino
        os.close(fd)
        one.close()
        assert seccomp.receive_fd(other) is None


def test_only_eventfds_become_doorbells() -> None:
    pidfd = os.pidfd_open(os.getpid())
    bell = os.eventfd(0)
    copy = seccomp.fetch_eventfd(pidfd, bell)
    assert not os.get_blocking(copy)
    with pytest.raises(OSError, match="not an eventfd"):
        seccomp.fetch_eventfd(pidfd, pidfd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        seccomp.fetch_eventfd(pidfd, 9999)
    for fd in (copy, bell, pidfd):
        os.close(fd)
