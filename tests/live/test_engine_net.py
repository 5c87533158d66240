"""Network interfaces of the engine, from both ends: packets, speed, limits, and what is counted."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import shell_guest
from net_world import namespace
from shell_guest import Guest, Shell

from firkin.host import netns, tun

pytestmark = pytest.mark.live

MIB = 1 << 20
MAC = "06:00:C0:00:02:02"
HOST, GUEST = "192.0.2.1", "192.0.2.2"
PORT = 5000


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shell_guest.build_initrd(tmp_path_factory.mktemp("initrd"))


class Link:
    """A guest with one interface, and the host's end of it."""

    def __init__(self, name: str, shell: Shell) -> None:
        self.name = name
        self.shell = shell

    def ping(self, count: int) -> float:
        """Median milliseconds of a round trip."""
        command = ("ip", "netns", "exec", self.name, "ping", "-q", "-c", str(count), "-i", "0.01", "-W", "5", GUEST)
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        found = re.search(r"= [\d.]+/([\d.]+)/", said)
        assert found, said
        return float(found[1])

    def replies(self, *, within_s: int) -> int:
        """How many of far too many pings are answered in time."""
        count = str(200 * within_s)
        command = (
            "ip",
            "netns",
            "exec",
            self.name,
            "ping",
            "-q",
            "-c",
            count,
            "-i",
            "0.01",
            "-w",
            str(within_s),
            GUEST,
        )
        return _received(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout)

    def from_guest(self, size: int) -> float:
        """Bytes a second of a file that the guest serves by HTTP, once it flows."""
        self.shell.run(f"head -c {size} /dev/zero > /big; pidof httpd || httpd -p {PORT} -h /")
        with netns.run_in(self.name, partial(socket.create_connection, (GUEST, PORT), 10)) as stream:
            stream.settimeout(60)
            stream.sendall(b"GET /big HTTP/1.0\r\n\r\n")
            missing = size - len(stream.recv(MIB))
            first, started = missing, time.monotonic()
            while missing > 0:
                missing -= len(stream.recv(MIB))
            return first / (time.monotonic() - started)

    def to_guest(self, size: int) -> float:
        """Bytes a second of a file that the guest fetches by HTTP."""
        with netns.run_in(self.name, partial(socket.create_server, (HOST, PORT))) as server:
            server.settimeout(30)
            self.shell.vmm.type(f"wget -q -O /dev/null http://{HOST}:{PORT}/; echo fetched")
            with server.accept()[0] as stream:
                stream.settimeout(60)
                stream.recv(4096)
                stream.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                started = time.monotonic()
                for _ in range(size // MIB):
                    stream.sendall(bytes(MIB))
                self.shell.vmm.expect("fetched")
                return size / (time.monotonic() - started)


class EngineLink(Link):
    """Of a guest that the engine runs."""

    def __init__(self, name: str, guest: Guest) -> None:
        super().__init__(name, guest.shell)
        self.guest = guest

    def patch(self, **limits: Any) -> None:
        body = {"iface_id": "net0", **limits}
        assert self.guest.api.call("PATCH", "/network-interfaces/net0", body) == (204, None)


def _received(said: str) -> int:
    found = re.search(r"(\d+) received", said)
    assert found, said
    return int(found[1])


@contextmanager
def linked(folder: Path, initrd: Path, **nic: Any) -> Iterator[EngineLink]:
    body = {"iface_id": "net0", "host_dev_name": "tap0", "guest_mac": MAC, **nic}
    with ExitStack() as undo:
        name = undo.enter_context(namespace())
        netns.run_in(name, partial(tun.create, "tap0"))
        for command in (f"address add {HOST}/30 dev tap0", "link set tap0 up"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        machine = {"vcpu_count": 1, "mem_size_mib": 256}
        resources = {"machine-config": machine, "network-interfaces/net0": body}
        guest = undo.enter_context(shell_guest.guest(folder, initrd, resources, prefix=("ip", "netns", "exec", name)))
        guest.shell.run(f"ip link set eth0 up; ip address add {GUEST}/30 dev eth0")
        yield EngineLink(name, guest)


def test_packets_pass_quickly_both_ways(tmp_path: Path, initrd: Path) -> None:
    with linked(tmp_path, initrd, mtu=1400) as link:
        assert link.shell.run("cat /sys/class/net/eth0/address") == MAC.lower()
        assert link.shell.run("cat /sys/class/net/eth0/mtu") == "1400"
        assert link.ping(100) < 20  # a millisecond on a quiet machine
        assert link.from_guest(32 * MIB) > 20 * MIB
        assert link.to_guest(32 * MIB) > 20 * MIB


def test_a_limit_on_bytes_holds_both_ways_and_can_be_changed(tmp_path: Path, initrd: Path) -> None:
    rate = 4 * MIB
    limit = {"bandwidth": {"size": rate // 10, "refill_time": 100}}
    with linked(tmp_path, initrd, rx_rate_limiter=limit, tx_rate_limiter=limit) as link:
        assert link.from_guest(8 * MIB) == pytest.approx(rate, rel=0.15)
        assert link.to_guest(8 * MIB) == pytest.approx(rate, rel=0.15)
        config = link.guest.api.call("GET", "/vm/config")[1]["network-interfaces"][0]
        assert config["tx_rate_limiter"]["bandwidth"]["size"] == rate // 10
        faster = {"bandwidth": {"size": rate // 5, "refill_time": 100}}
        link.patch(tx_rate_limiter=faster)
        assert link.from_guest(16 * MIB) == pytest.approx(2 * rate, rel=0.15)
        link.patch(tx_rate_limiter={"bandwidth": {"size": 0, "refill_time": 0}})
        assert link.from_guest(32 * MIB) > 4 * rate
        assert link.guest.api.call("GET", "/vm/config")[1]["network-interfaces"][0]["tx_rate_limiter"] is None


def test_a_limit_on_packets_and_its_burst(tmp_path: Path, initrd: Path) -> None:
    ops = {"ops": {"size": 10, "refill_time": 1000, "one_time_burst": 20}}
    with linked(tmp_path, initrd) as link:
        link.ping(1)  # the addresses are known now
        link.patch(tx_rate_limiter=ops)
        # A reply each: 20 of the burst, 10 of the bucket, and 10 a second as it refills.
        assert link.replies(within_s=3) == pytest.approx(20 + 10 + 30, rel=0.15)


def test_an_unknown_interface_and_one_that_comes_too_late_are_refused(tmp_path: Path, initrd: Path) -> None:
    with linked(tmp_path, initrd) as link:
        assert link.guest.api.fault("PATCH", "/network-interfaces/other", {"iface_id": "other"}) == (
            "Network config error: Unable to update the net device: Failed perform action on device: Device not found"
        )
        late = {"iface_id": "late", "host_dev_name": "tap1"}
        assert "PCI is not enabled" in link.guest.api.fault("PUT", "/network-interfaces/late", late)
        assert "PCI is not enabled" in link.guest.api.fault("DELETE", "/network-interfaces/net0")


def test_packets_wait_for_a_paused_guest(tmp_path: Path, initrd: Path) -> None:
    with linked(tmp_path, initrd) as link:
        link.ping(1)
        assert link.guest.api.call("PATCH", "/vm", {"state": "Paused"}) == (204, None)
        ping = ("ip", "netns", "exec", link.name, "ping", "-q", "-c", "5", "-i", "0.1", "-W", "10", GUEST)
        with subprocess.Popen(ping, stdout=subprocess.PIPE, text=True) as pinging:
            time.sleep(0.7)
            assert link.guest.api.call("PATCH", "/vm", {"state": "Resumed"}) == (204, None)
            said = pinging.communicate(timeout=20)[0]
        assert _received(said) == 5
        link.ping(1)


def test_a_driver_that_starts_anew_goes_on(tmp_path: Path, initrd: Path) -> None:
    with linked(tmp_path, initrd) as link:
        device = link.shell.run("basename $(dirname $(dirname $(readlink -f /sys/class/net/eth0)))")
        for action in ("unbind", "bind"):
            link.shell.run(f"echo {device} > /sys/bus/virtio/drivers/virtio_net/{action}")
        link.shell.run(f"ip link set eth0 up; ip address add {GUEST}/30 dev eth0")
        link.ping(3)
