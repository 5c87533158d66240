"""What makes a fork another machine, built for this host with checks; each test runs it in namespaces of its own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import uuid
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from agent_rig import STRICT, Agent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firkin.agent.identity import Identity, render_identity
from firkin.agent.initrd import GuestFile, Interface
from firkin.errors import AgentError

pytestmark = pytest.mark.live

OLD, NEW = "06:00:0a:00:00:02", "06:00:0a:00:00:03"
BOOT_ID = uuid.UUID("5b868c79-4bfc-4fc4-8e0c-73ff4ceccaab")
FORK = Identity(hostname="fork", seed=bytes(64), boot_id=BOOT_ID)
# An interface as a guest has it, and a neighbour that hears it.
LINK = f"""
ip link add eth0 address {OLD} type veth peer name host
ip link set eth0 up; ip link set host up; ip address add 10.0.0.2/24 dev eth0
ip route add default via 10.0.0.1
"""


def without_clock(identity: Identity) -> bytes:
    """Its statements for a host whose clock is not ours to set; this test's files, not those of the host."""
    lines = render_identity(identity, 1_000_000_000).splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith((b"clock ", b"file 644 0 0 /etc/")))


@dataclasses.dataclass
class Renewed:
    """What the guest's program said, and what a script saw afterwards."""

    fault: str
    seen: str


Renew = Callable[..., Renewed]


@pytest.fixture
def renew(native: Path) -> Renew:
    """Take on identities between two scripts."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")

    def run(*identities: Identity | bytes, before: str = ":", after: str = ":") -> Renewed:
        texts = (given if isinstance(given, bytes) else without_clock(given) for given in identities)
        done = subprocess.run(
            [native / "renew-run", before, after], input=b"\n".join(texts), capture_output=True, check=False,
            timeout=30, env={**os.environ, **STRICT},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        fault, _, seen = done.stdout.decode().partition("\n")
        return Renewed(fault, seen)

    return run


def test_name_boot_id_and_files_are_what_was_asked(renew: Renew, tmp_path: Path) -> None:
    path = tmp_path / "etc" / "machine-id"
    files = (GuestFile(str(path), b"0123\n", mode=0o444),)
    look = f"hostname; cat {path} /proc/sys/kernel/random/boot_id; stat -c %a {path}"
    renewed = renew(dataclasses.replace(FORK, files=files), after=look)
    assert renewed == Renewed("", f"fork\n0123\n{BOOT_ID}\n444\n")


def test_a_fork_of_a_fork_of_a_fork_has_one_boot_id_and_one_mount(renew: Renew) -> None:
    ids = [uuid.uuid4() for _ in range(3)]
    forks = [dataclasses.replace(FORK, boot_id=boot_id) for boot_id in ids]
    look = "cat /proc/sys/kernel/random/boot_id; grep -c boot_id /proc/self/mounts; ls -A /run"
    assert renew(*forks, after=look) == Renewed("", f"{ids[-1]}\n1\n")


def test_an_open_boot_id_says_the_new_one(renew: Renew) -> None:
    """A program that had the file open, as a namespace of its own has, is not left with the old one."""
    hold = "unshare --mount --propagation slave sh -c 'until cat {0}; do sleep 0.01; done > /run/seen' & sleep 0.2"
    second = dataclasses.replace(FORK, boot_id=uuid.uuid4())
    look = "exec 3< /proc/sys/kernel/random/boot_id; cat <&3; " + hold.format("/proc/sys/kernel/random/boot_id")
    renewed = renew(FORK, second, after=f"{look}; wait; cat /run/seen")
    assert renewed == Renewed("", f"{second.boot_id}\n" * 2)


def test_addresses_and_routes_are_replaced_and_the_mac_is_another(renew: Renew) -> None:
    before = f"{LINK} ip address add 10.0.0.99/24 dev eth0; ip address add 172.16.0.9/16 dev eth0"
    look = "ip -o -4 address show dev eth0; ip -4 route; ip neighbour"
    look += "; ip -o link show dev eth0 | grep -o 'ether [0-9a-f:]*'"
    interface = Interface(NEW, IPv4Interface("10.0.0.3/24"), IPv4Address("10.0.0.254"))
    fork = dataclasses.replace(FORK, macs=((OLD, NEW),), interfaces=(interface,))
    renewed = renew(fork, before=before, after=look)
    address, *rest = renewed.seen.splitlines()
    assert renewed.fault == ""
    assert address.split()[3] == "10.0.0.3/24"
    assert [line.strip() for line in rest] == [
        "default via 10.0.0.254 dev eth0",
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.3",
        f"ether {NEW}",
    ]


def test_an_identity_may_come_again(renew: Renew) -> None:
    """As when its answer was lost."""
    fork = dataclasses.replace(FORK, macs=((OLD, NEW),), interfaces=(Interface(NEW, IPv4Interface("10.0.0.3/24")),))
    renewed = renew(fork, fork, before=LINK, after="ip -o -4 address show dev eth0")
    assert (renewed.fault, renewed.seen.count("inet ")) == ("", 1)


def test_ipv6_addresses_go_too_and_the_link_local_one_follows_the_mac(renew: Renew) -> None:
    before = f"{LINK} ip address add fd00::2/64 dev eth0 nodad; ip -6 route add default via fd00::1; sleep 0.1"
    fork = dataclasses.replace(FORK, macs=((OLD, NEW),), interfaces=(Interface(NEW, IPv6Interface("fd00::3/64")),))
    renewed = renew(fork, before=before, after="ip -o -6 address show dev eth0; ip -6 route show default")
    addresses = [line.split()[3] for line in renewed.seen.splitlines()]
    assert (renewed.fault, sorted(addresses)) == ("", ["fd00::3/64", "fe80::400:aff:fe00:3/64"])


def test_many_addresses_are_all_removed(renew: Renew) -> None:
    before = f"{LINK} for i in $(seq 3 120); do ip address add 10.0.0.$i/24 dev eth0; done"
    before += "; for i in $(seq 3 60); do ip address add 10.$i.0.1/24 dev eth0; done"
    fork = dataclasses.replace(FORK, interfaces=(Interface(OLD, IPv4Interface("10.0.0.200/24")),))
    assert renew(fork, before=before, after="ip -o -4 address show dev eth0 | wc -l") == Renewed("", "1\n")


ANNOUNCED = """
import socket, subprocess, sys
ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
ear.bind(("host", 0))
ear.settimeout(0.5)
open("/run/ears", "w").close()
try:
    while True:
        packet = ear.recv(100)
        print(packet[6:12].hex(":"), socket.inet_ntoa(packet[28:32]), socket.inet_ntoa(packet[38:42]))
except TimeoutError:
    pass
"""


def test_neighbours_are_told_at_once_and_never_of_an_old_address(renew: Renew, tmp_path: Path) -> None:
    (tmp_path / "ear.py").write_text(ANNOUNCED)
    before = f"""{LINK} ip address add 10.0.0.1/24 dev host
echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify # as firkin-init does when it boots a machine
python3 {tmp_path}/ear.py > /run/heard & until [ -e /run/ears ]; do sleep 0.01; done"""
    interface = Interface(NEW, IPv4Interface("10.0.0.3/24"), IPv4Address("10.0.0.1"))
    fork = dataclasses.replace(FORK, macs=((OLD, NEW),), interfaces=(interface,))
    renewed = renew(fork, before=before, after="sleep 0.7; cat /run/heard")
    assert renewed == Renewed("", f"{NEW} 10.0.0.3 10.0.0.3\n")


SERVER = """
cp /bin/sleep /run/server
sh -c 'trap "" TERM; exec /run/server 30' & echo $! > /run/{0}.pid
until [ "$(cat /proc/$!/comm)" = server ]; do sleep 0.01; done
"""


@pytest.mark.parametrize(("name", "lives"), [("server", "1"), ("other", "0")])
def test_only_the_server_that_a_pid_file_is_named_after_is_hung_up(renew: Renew, name: str, lives: str) -> None:
    """A file that its server left behind may hold the pid of somebody else by now."""
    fork = dataclasses.replace(FORK, hangups=(f"/run/{name}.pid", "/run/nothing.pid"))
    look = (
        f"sleep 0.1; pid=$(cat /run/{name}.pid); grep -qs 'State:.*sleeping' /proc/$pid/status; echo $?; kill -9 $pid"
    )
    assert renew(fork, before=SERVER.format(name), after=f"{look} || true") == Renewed("", f"{lives}\n")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"macs": ((OLD, NEW),)}, f"network {OLD}: no interface with that address"),
        ({"interfaces": (Interface(NEW, IPv4Interface("10.0.0.3/24")),)}, f"network {NEW}: no interface"),
        ({"files": (GuestFile("/proc/nothing", b""),)}, "file /proc/nothing: No such file"),
        ({"files": (GuestFile("/run", b""),)}, "file /run: Is a directory"),
    ],
)
def test_the_first_that_fails_is_named_and_ends_it(renew: Renew, change: dict[str, object], fault: str) -> None:
    renewed = renew(dataclasses.replace(FORK, **change), after="hostname")  # type: ignore[arg-type]  # of any field
    assert renewed.fault.startswith(fault)
    assert renewed.seen != "fork\n"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (b"", "line 1: nothing there"),
        (b"hostname x\n", "line 1: the first line"),
        (b"firkin 1\nroot /dev/vda squashfs\n", "line 2: unknown key"),
        (b"firkin 1\nclock 1\n", "line 2: wrong number"),
        (b"firkin 1\nclock 1 1000000000\n", "line 2: not a time"),
        (b"firkin 1\nclock 99999999999 0\n", "line 2: not a time"),
        (b"firkin 1\nmac 06:00:00:00:00:01 x\n", "line 2: not a MAC"),
        (b"firkin 1\nbootid 5b868c79-4bfc-4fc4-8e0c-73ff4ceccaaX\n", "line 2: not a UUID"),
        (b"firkin 1\nbootid 5b868c79\n", "line 2: not a UUID"),
        (b"firkin 1\nhangup run/sshd.pid\n", "line 2: not an absolute path"),
        (b"firkin 1\n" + b"hangup /a\n" * 9, "line 10: too many"),
        (b"firkin 1\n" + b"mac 06:00:00:00:00:01 06:00:00:00:00:02\n" * 9, "line 10: too many"),
    ],
)
def test_a_wrong_statement_is_named_by_its_line(native: Path, lines: bytes, fault: str) -> None:
    done = understood(native, lines)
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"firkin-init: identity {fault}")


def understood(native: Path, lines: bytes) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **STRICT}
    argv: list[str | Path] = [native / "config-dump", "identity"]
    return subprocess.run(argv, input=lines, capture_output=True, check=False, env=environment)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2**62), st.uuids())
def test_the_guest_understands_what_the_host_writes(native: Path, data: bytes, now_ns: int, boot_id: uuid.UUID) -> None:
    identity = dataclasses.replace(
        FORK, boot_id=boot_id, seed=data, files=(GuestFile("/a b", data),), macs=((OLD, NEW),), hangups=("/run/s.pid",)
    )
    said = understood(native, render_identity(identity, now_ns)).stdout.decode().splitlines()
    assert f"clock {now_ns // 10**9} {now_ns % 10**9}" in said
    assert {f"data {data.hex()}", f"seed {data.hex()}", f"bootid {str(boot_id).encode().hex()}"} <= set(said)
    assert {f"from {OLD.replace(':', '')}", f"to {NEW.replace(':', '')}", f"hangup {b'/run/s.pid'.hex()}"} <= set(said)


def test_an_agent_without_a_machine_refuses(agent: Agent) -> None:
    before = os.uname().nodename
    with agent.connect() as guest:
        with pytest.raises(AgentError, match="no machine to change"):
            guest.identify(FORK)
        assert guest.run("echo", "next").stdout == b"next\n"
    assert os.uname().nodename == before


def test_what_does_not_fit_in_a_frame_is_told(agent: Agent) -> None:
    with agent.connect() as guest, pytest.raises(AgentError, match="do not fit"):
        guest.identify(dataclasses.replace(FORK, files=(GuestFile("/large", bytes(40_000)),)))
