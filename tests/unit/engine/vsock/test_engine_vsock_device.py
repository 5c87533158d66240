"""What the engine sees of the device before there is a guest, and the filter's program."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from firkin.engine.vsock import VsockDevice, seccomp
from firkin.engine.vsock.clock import RunClock
from firkin.errors import EngineError

ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
X86_64, ARM64 = 0xC000003E, 0xC00000B7


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # short, relative socket paths
    return tmp_path


def test_socket_is_there_at_once_and_stays(in_tmp: Path) -> None:
    device = VsockDevice(3, "v.sock")
    assert (in_tmp / "v.sock").is_socket()
    device.close()
    device.close()
    assert (in_tmp / "v.sock").is_socket()


def test_existing_path_is_refused(in_tmp: Path) -> None:
    (in_tmp / "v.sock").touch()
    with pytest.raises(OSError, match="in use") as caught:
        VsockDevice(3, "v.sock")
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("path", "number"), [("x" * 108, errno.ENAMETOOLONG), ("", errno.EINVAL), ("\0a", errno.EINVAL)]
)
def test_impossible_path_is_refused(in_tmp: Path, path: str, number: int) -> None:
    with pytest.raises(OSError, match=r".+") as caught:
        VsockDevice(3, path)
    assert caught.value.errno == number


def test_longest_path_works(in_tmp: Path) -> None:
    VsockDevice(3, "x" * 107).close()


def test_arguments_name_the_inherited_descriptor(in_tmp: Path) -> None:
    device = VsockDevice(42, "v.sock")
    (fd,) = device.inherited_fds()
    assert device.qemu_args() == ["-device", f"vhost-vsock-device,guest-cid=42,vhostfd={fd}"]
    device.close()


def test_refused_device_leaves_no_descriptor(in_tmp: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with suppress(OSError):
        VsockDevice(3, "missing/v.sock")
    VsockDevice(3, "v.sock").close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_host_ports_go_on_from_a_snapshots(in_tmp: Path) -> None:
    first, second = VsockDevice(3, "a.sock"), VsockDevice(3, "b.sock", first_host_port=(1 << 30) + 9)
    assert (first.next_host_port, second.next_host_port) == (1 << 30, (1 << 30) + 9)
    first.close()
    second.close()


def test_child_that_dies_early_is_reported(in_tmp: Path) -> None:
    device = VsockDevice(3, "v.sock")
    with pytest.raises(EngineError, match="ended before"):
        device.attach(os.getpid())
    device.close()


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
        ({"nr": 16, "arch": X86_64, "fd": 8}, ALLOW),
        ({"nr": 1, "arch": X86_64}, ALLOW),
        ({"nr": 16, "arch": ARM64}, ALLOW),
    ],
)
def test_filter_traps_vhost_ioctls_on_its_descriptor_only(call: dict[str, int], expected: int) -> None:
    assert verdict(seccomp.build_filter(7, 0xAF), **call) == expected


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


def test_clock_stands_still_while_stopped() -> None:
    clock = RunClock()
    assert clock.now_s() == clock.now_s()
    clock.start()
    clock.stop()
    stopped_s = clock.now_s()
    clock.start()
    assert clock.now_s() - stopped_s < 1
