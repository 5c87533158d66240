"""What the engine sees of the device before there is a guest."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import pytest

from firkin.engine.vsock import VsockDevice
from firkin.engine.vsock.clock import RunClock


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
    assert device.qemu_args() == [
        "-device",
        f"vhost-vsock-device,id=vsock,guest-cid=42,vhostfd={device.trapped_fds[0]}",
    ]
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


def test_clock_stands_still_while_stopped() -> None:
    clock = RunClock()
    assert clock.now_s() == clock.now_s()
    clock.start()
    clock.stop()
    stopped_s = clock.now_s()
    clock.start()
    assert clock.now_s() - stopped_s < 1
