"""The metadata service's network stack against Linux's: a tap in a namespace of its own, and curl as the guest."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from mmds_world import world

from firkin.engine.mmds.service import Mmds
from firkin.fcapi.mmds import MmdsConfig, MmdsVersion
from firkin.host import netns

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]
SERVICE = ("169.254.169.254", 80)
URL = "http://169.254.169.254"
BIG = {f"key{number}": "v" * 100 for number in range(2000)}
DATA = {"latest": {"meta-data": {"id": "i-1", "name": "a"}}, "number": 7, "big": BIG}


def service(version: MmdsVersion = MmdsVersion.V1) -> Mmds:
    mmds = Mmds("vm", 10**6)
    mmds.config = MmdsConfig(version=version, network_interfaces=("eth0",))
    mmds.store.put(DATA)
    return mmds


def test_curl_reads_text_and_json() -> None:
    with world(service()) as guest:
        assert guest.curl(f"{URL}/latest/meta-data") == "id\nname"
        assert guest.curl(f"{URL}/latest//meta-data/id/") == "i-1"
        head, _, body = guest.curl("-i", "-H", "Accept: application/json", f"{URL}/latest").partition("\n\n")
        assert head.splitlines() == [
            "HTTP/1.1 200 ",
            "Server: Firecracker API",
            "Connection: keep-alive",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        assert json.loads(body) == DATA["latest"]
        assert guest.curl("-o", "/dev/null", "-w", "%{http_code}", f"{URL}/number") == "501"
        assert guest.curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", f"{URL}/number") == "501"
        assert guest.partial_checksums > 0


def test_version_2_by_curl() -> None:
    with world(service(MmdsVersion.V2)) as guest:
        assert guest.curl("-w", "%{http_code}", f"{URL}/number").endswith("session token.401")
        ask = ("-X", "PUT", "-H", "X-metadata-token-ttl-seconds: 60", f"{URL}/latest/api/token")
        token = guest.curl(*ask)
        assert len(token) == 48
        assert "\nX-metadata-token-ttl-seconds: 60\n" in guest.curl("-i", *ask)
        assert guest.curl("-H", f"X-aws-ec2-metadata-token: {token}", f"{URL}/latest/meta-data/id") == "i-1"


def test_large_replies_and_reused_connections() -> None:
    mmds = service()
    with world(mmds) as guest:
        asked = ["-H", "Accept: application/json", *[f"{URL}/big"] * 5]
        assert guest.curl(*asked) == json.dumps(BIG, separators=(",", ":"), sort_keys=True) * 5
    assert mmds.metrics.connections_created == 1
    assert mmds.metrics.connections_destroyed == 1
    assert mmds.metrics.rx_accepted_err == 0


def test_a_lossy_line_changes_no_answer() -> None:
    with world(service(), loss=random.Random(1)) as guest:
        text = guest.curl("-H", "Accept: application/json", f"{URL}/big", timeout_s=60)
        assert json.loads(text) == BIG
        assert guest.lost > 10


def test_frames_for_others_are_passed_on() -> None:
    with world(service()) as guest:
        assert guest.run("sh", "-c", "ping -c 1 -W 1 172.16.0.99 || true")
        assert guest.passed_on > 0
        assert guest.stack.next_tick_s() is None


def test_many_at_once_and_no_more_than_thirty() -> None:
    mmds = service()
    with world(mmds) as guest:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: guest.curl(f"{URL}/latest/meta-data/id"), range(24)))
        assert answers == ["i-1"] * 24
        netns.run_in(guest.name, lambda: _fill)
    assert mmds.metrics.connections_created == mmds.metrics.connections_destroyed


def _fill() -> None:
    held = [socket.create_connection(SERVICE, timeout=10) for _ in range(30)]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(SERVICE, timeout=10)
    held[0].sendall(b"GET /latest/meta-data/id HTTP/1.1\r\n\r\n" * 2)
    assert held[0].recv(1 << 16)
    for each in held:
        each.close()
    socket.create_connection(SERVICE, timeout=10).close()


def test_a_request_in_several_segments() -> None:
    with world(service()) as guest:

        def ask() -> bytes:
            with socket.create_connection(SERVICE, timeout=10) as stream:
                stream.sendall(b"GET /latest/meta-data/id HTTP/1.1\r\nX-Long: " + b"x" * 2000 + b"\r\n\r\n")
                return stream.recv(1 << 16)

        assert netns.run_in(guest.name, ask).endswith(b"\r\n\r\ni-1")
