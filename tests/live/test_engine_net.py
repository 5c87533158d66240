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
from shell_guest import Guest

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

    def __init__(self, name: str, guest: Guest) -> None:
        self.name = name
        self.guest = guest
        self.shell = guest.shell

    def ping(self, count: int) -> float:
        """Median milliseconds of a round trip."""
        command = ("ip", "netns", "exec", self.name, "ping", "-q", "-c", str(count), "-i", "0.01", "-W", "5", GUEST)
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        found = re.search(r"= [\d.]+/([\d.]+)/", said)
        assert found, said
        return float(found[1])

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
            self.guest.vmm.type(f"wget -q -O /dev/null http://{HOST}:{PORT}/; echo fetched")
            with server.accept()[0] as stream:
                stream.settimeout(60)
                stream.recv(4096)
                stream.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                started = time.monotonic()
                for _ in range(size // MIB):
                    stream.sendall(bytes(MIB))
                self.guest.vmm.expect("fetched")
                return size / (time.monotonic() - started)

    def patch(self, **limits: Any) -> None:
        body = {"iface_id": "net0", **limits}
        assert self.guest.api.call("PATCH", "/network-interfaces/net0", body) == (204, None)


@contextmanager
def linked(folder: Path, initrd: Path, **nic: Any) -> Iterator[Link]:
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
        yield Link(name, guest)


def test_packets_pass_quickly_both_ways(tmp_path: Path, initrd: Path) -> None:
    with linked(tmp_path, initrd, mtu=1400) as link:
        assert link.shell.run("cat /sys/class/net/eth0/address") == MAC.lower()
        assert link.shell.run("cat /sys/class/net/eth0/mtu") == "1400"
        print("ping", link.ping(200), "ms")
        print("from guest", link.from_guest(64 * MIB) / MIB, "MiB/s")
        print("to guest", link.to_guest(64 * MIB) / MIB, "MiB/s")
