"""The engine over its API, as a client sees it: command line, socket, phases, start, pause."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_rig import BOOT_ARGS, Api, Rig, build_initrd, engine, need_kernel

pytestmark = pytest.mark.live

VMM = [sys.executable, "-I", "-m", "firkin.engine"]


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_kernel()
    return build_initrd(tmp_path_factory.mktemp("initrd"))


@pytest.fixture
def rig(tmp_path: Path, initrd: Path) -> Rig:
    return Rig(tmp_path, need_kernel(), initrd)


def run(*args: str) -> tuple[int, str, str]:
    done = subprocess.run([*VMM, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def boot_source(rig: Rig) -> dict[str, Any]:
    return {"kernel_image_path": rig.kernel, "initrd_path": str(rig.initrd), "boot_args": BOOT_ARGS}


def test_version_and_help() -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert re.match(r"Firecracker v1\.16\.1\n\n.* \[anonymous-instance:main\] Firecracker exiting successfully", out)
    assert "--api-sock <api-sock>" in run("--help")[1]


def test_a_bad_argument_exits_with_153() -> None:
    code, out, err = run("--nonsense")
    assert code == 153
    assert "Arguments parsing error: Found argument 'nonsense' which wasn't expected" in out
    assert "\n\nFor more information try --help." in out
    assert err == 'Error: ParseArguments(UnexpectedArgument("nonsense"))\n'


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("--level", "loud"), 152, "Invalid value for logger level: "),
        (("--id", "a_b"), -6, "Invalid instance ID"),
        (("--no-api", "--config-file", "/nonexistent"), -6, "Unable to open or read from the configuration file"),
    ],
)
def test_other_ways_to_fail_have_codes_of_their_own(args: tuple[str, ...], code: int, text: str) -> None:
    actual, out, _ = run(*args)
    assert (actual, text in out) == (code, True)


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.touch()
    code, out, _ = run("--api-sock", str(path))
    assert code == 1
    assert f"Failed to open the API socket at: {path}. Check that it is not already used." in out
    assert path.exists()


def test_a_guest_is_configured_started_paused_and_resumed(rig: Rig) -> None:
    with engine("--api-sock", rig.folder / "api.sock", "--id", "it") as vmm:
        api = Api(rig.folder / "api.sock")
        assert api.fault("PUT", "/actions", {"action_type": "InstanceStart"}) == (
            "Start microvm error: Cannot start microvm without kernel configuration."
        )
        api.put("/boot-source", **boot_source(rig))
        api.put("/machine-config", vcpu_count=1, mem_size_mib=128)
        api.put("/drives/data", drive_id="data", is_root_device=False, path_on_host=rig.disk("data"))
        assert api.call("GET", "/")[1]["state"] == "Not started"
        api.put("/actions", action_type="InstanceStart")
        vmm.expect("READY")
        vmm.ask("head /dev/vda", "/dev/vda=<disk data")
        assert api.call("PATCH", "/vm", {"state": "Paused"}) == (204, None)
        assert api.call("GET", "/")[1] == {
            "id": "it",
            "state": "Paused",
            "vmm_version": "1.16.1",
            "app_name": "Firecracker",
        }
        vmm.type("hello")
        with pytest.raises(AssertionError, match="did not come"):
            vmm.expect("said:hello", timeout_s=0.3)
        assert api.call("PATCH", "/vm", {"state": "Resumed"}) == (204, None)
        vmm.expect("said:hello")
        assert "not supported after starting" in api.fault("PUT", "/boot-source", boot_source(rig))
        api.close()
        vmm.type("reboot")
        assert vmm.wait() == 0


def test_a_kernel_that_qemu_refuses_is_a_fault_and_can_be_mended(rig: Rig) -> None:
    bad = rig.folder / "no-kernel"
    shutil.copy(rig.initrd.parent / "init", bad)  # ELF, and no kernel
    with engine("--api-sock", rig.folder / "api.sock") as vmm:
        api = Api(rig.folder / "api.sock")
        api.put("/boot-source", kernel_image_path=str(bad))
        assert "no PVH entry point" in api.fault("PUT", "/actions", {"action_type": "InstanceStart"})
        api.put("/boot-source", **boot_source(rig))
        api.put("/actions", action_type="InstanceStart")
        vmm.expect("READY")
        api.close()


def test_the_api_stays_up_beside_a_config_file(rig: Rig) -> None:
    with engine("--api-sock", rig.folder / "api.sock", "--config-file", rig.config()) as vmm:
        api = Api(rig.folder / "api.sock")
        vmm.expect("READY")
        assert api.call("GET", "/")[1]["state"] == "Running"
        assert api.call("GET", "/vm/config")[1]["boot-source"]["boot_args"] == BOOT_ARGS
        api.close()


def test_a_private_kernel_is_handed_over(rig: Rig) -> None:
    copy = rig.folder / "vmlinux"
    shutil.copy(rig.kernel, copy)
    copy.chmod(0o600)
    rig.kernel = str(copy)
    with engine("--no-api", "--config-file", rig.config()) as vmm:
        vmm.expect("READY")


def test_a_vsock_socket_is_bound_at_once_and_survives_a_failed_start(rig: Rig) -> None:
    path = rig.folder / "v.sock"
    with engine("--api-sock", rig.folder / "api.sock") as vmm:
        api = Api(rig.folder / "api.sock")
        taken = rig.folder / "taken"
        taken.touch()
        assert api.fault("PUT", "/vsock", {"guest_cid": 3, "uds_path": str(taken)}) == (
            "Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix socket: "
            "Address in use (os error 98)"
        )
        for _ in range(2):
            api.put("/vsock", guest_cid=3, uds_path=str(path))
        assert api.call("GET", "/vm/config")[1]["vsock"] == {"guest_cid": 3, "uds_path": str(path)}
        not_a_kernel = rig.initrd.parent / "init"
        api.put("/boot-source", kernel_image_path=str(not_a_kernel))
        assert "no PVH entry point" in api.fault("PUT", "/actions", {"action_type": "InstanceStart"})
        api.put("/boot-source", **boot_source(rig))
        api.put("/actions", action_type="InstanceStart")
        vmm.expect("READY")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b"CONNECT 52\n")
            assert client.recv(100) == b""  # nobody listens in this guest: the connection is refused
        api.close()
        vmm.type("reboot")
        assert vmm.wait() == 0


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    with engine("--api-sock", tmp_path / "api.sock"):
        Api(tmp_path / "api.sock").close()
        yield tmp_path / "api.sock"


def test_the_eleventh_connection_is_turned_away(listening: Path) -> None:
    held = [Api(listening) for _ in range(10)]
    for api in held:
        assert api.call("GET", "/version")[0] == 200
    with socket.socket(socket.AF_UNIX) as eleventh:
        eleventh.connect(str(listening))
        assert eleventh.recv(1000).startswith(b"HTTP/1.1 503\r\n")
    for api in held:
        api.close()
    time.sleep(0.05)
    api = Api(listening)
    assert api.call("GET", "/version")[0] == 200
    api.close()


def test_a_vanished_client_harms_nobody(listening: Path) -> None:
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(listening))
        rude.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    api = Api(listening)
    assert api.call("GET", "/version")[0] == 200
    api.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")
def test_a_tap_of_the_engines_own_namespace_carries_packets(rig: Rig) -> None:
    netns = f"fk-{os.getpid()}-{rig.folder.name[-8:]}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    inside = ("ip", "netns", "exec", netns)
    try:
        for command in (
            "ip tuntap add tap0 mode tap",
            "ip address add 192.0.2.1/30 dev tap0",
            "ip link set tap0 up",
        ):
            subprocess.run([*inside, *command.split()], check=True)
        address = f"{BOOT_ARGS} ip=192.0.2.2::192.0.2.1:255.255.255.252::eth0:off"
        with engine("--api-sock", rig.folder / "api.sock", prefix=inside) as vmm:
            api = Api(rig.folder / "api.sock")
            assert "Invalid interface name" in api.fault(
                "PUT", "/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": "tap0123456789abcdef"}
            )
            nic = {"iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:C0:00:02:02"}
            for _ in range(2):  # the same tap can be opened again: the old one is let go first
                api.put("/network-interfaces/eth0", **nic)
            api.put("/boot-source", **(boot_source(rig) | {"boot_args": address}))
            api.put("/actions", action_type="InstanceStart")
            vmm.expect("READY")
            vmm.ask("cat /sys/class/net/eth0/address", "=<06:00:c0:00:02:02>")
            subprocess.run([*inside, "ping", "-q", "-c", "3", "-i", "0.2", "-W", "5", "192.0.2.2"], check=True)
            api.close()
    finally:
        subprocess.run(["ip", "netns", "delete", netns], check=True)
