"""OpenSSH's own programs on a real Debian guest: through vsock from here, straight from its network's namespace."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.settings import load
from firkin.spec import MachineSpec

pytestmark = pytest.mark.live

TIMEOUT_S = 60
FIRKIN = (sys.executable, "-m", "firkin.cli")


@pytest.fixture(scope="module")
def machine(shared_home: Path) -> Iterator[Machine]:
    settings = load({"FIRKIN_HOME": str(shared_home), "FIRKIN_KERNEL": "build", "FIRKIN_COLD": "1"})
    with Firkin(settings) as firkin, firkin.run(MachineSpec(name="web", image="debian")) as machine:
        machine.await_port(22, timeout_s=TIMEOUT_S)
        yield machine


@pytest.fixture
def config(machine: Machine, tmp_path: Path) -> str:
    path = tmp_path / "config"
    path.write_bytes(firkin(machine, "ssh-config").stdout)
    return str(path)


def firkin(machine: Machine, *words: str, stdin: bytes = b"", path: str = "") -> subprocess.CompletedProcess[bytes]:
    environ = os.environ | {"FIRKIN_HOME": str(machine._context.paths.home)} | ({"PATH": path} if path else {})
    return subprocess.run([*FIRKIN, *words], input=stdin, capture_output=True, env=environ, timeout=TIMEOUT_S)


def run(*argv: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_has_its_streams_and_its_code(machine: Machine) -> None:
    done = firkin(machine, "ssh", "web", "cat; echo $USER@$(hostname) >&2; exit 7", stdin=b"\x00\xff\r\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\x00\xff\r\n", b"root@web\n")


def test_a_port_of_the_guest_is_forwarded_to_our_own_loopback(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = os.environ | {"FIRKIN_HOME": str(machine._context.paths.home)}
    argv = [*FIRKIN, "ssh", "-N", "web", "--", "-L", f"127.0.0.1:{port}:localhost:22"]
    tunnel = subprocess.Popen(argv, env=environ)

    def greets() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                return connection.recv(8) == b"SSH-2.0-"
        except ConnectionRefusedError:
            return False

    try:
        assert wait_until(greets, timeout_s=TIMEOUT_S, interval_s=0.1)
    finally:
        tunnel.terminate()
        tunnel.wait(10)


def test_ssh_scp_and_sftp_read_the_config(machine: Machine, config: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    run("scp", "-q", "-F", config, str(tmp_path / "data"), "web:/root/data")
    assert (
        run("ssh", "-F", config, "web", "sha256sum </root/data").split()[0].decode() == hashlib.sha256(data).hexdigest()
    )
    run("sftp", "-q", "-F", config, "-b", "-", "web", stdin=f"get /root/data {tmp_path}/back\n".encode())
    assert (tmp_path / "back").read_bytes() == data


def test_rsync_reads_the_config(machine: Machine, config: str, tmp_path: Path) -> None:
    program = shutil.which("rsync")
    assert program is not None, "script/bootstrap installs it"
    listed = run("ldd", program).decode().split()
    # The guest has its own C library; the rest goes along with the program.
    libraries = [word for word in listed if word.startswith("/lib/") and "libc.so" not in word]
    run("ssh", "-F", config, "web", "mkdir -p /opt/rsync")
    run("scp", "-q", "-F", config, program, *libraries, "web:/opt/rsync")
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").write_text("content")
    remote = "LD_LIBRARY_PATH=/opt/rsync /opt/rsync/rsync"
    run("rsync", "-a", "-e", f"ssh -F {config}", "--rsync-path", remote, f"{tree}/", "web:/root/tree")
    assert machine.exec("cat", "/root/tree/folder/file").stdout == b"content"


def test_within_the_networks_namespace_the_way_is_straight(machine: Machine) -> None:
    netns = machine.network.netns
    assert netns is not None
    home = machine._context.paths.home
    inside = ("ip", "netns", "exec", netns, "env", f"FIRKIN_HOME={home}", *FIRKIN)
    config = run(*inside, "ssh-config", "web").decode()
    assert f"HostName {machine.address}\n" in config
    assert "ProxyCommand none\n" in config
    assert run(*inside, "ssh", "web", "hostname") == b"web\n"
    assert "proxy" in machine.ssh_config()


def test_the_key_is_for_its_user_alone_and_in_no_command_line(machine: Machine) -> None:
    paths = machine._context.paths
    key = paths.keys / "id_ed25519"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    secret = key.read_text().splitlines()[3]
    assert secret not in " ".join(machine.ssh_argv()) + machine.ssh_config()
    logs = paths.machine_home(machine.id)
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    assert not any(secret.encode() in path.read_bytes() for path in logs.glob("*.log*"))


def test_another_machine_under_that_address_is_not_trusted(machine: Machine, config: str, tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    kind, key = (tmp_path / "other.pub").read_text().split()[:2]
    (tmp_path / "hosts").write_text(f"web {kind} {key}\n")
    argv = ["ssh", "-o", f"UserKnownHostsFile={tmp_path}/hosts", "-F", config, "web", "true"]
    done = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr


def test_what_cannot_be_is_told(machine: Machine) -> None:
    for words, code, why, hint in (
        (("ssh", "nosuch"), 2, "machine 'nosuch': not found", "firkin ls"),
        (("ssh",), 2, "no machine is named", "firkin ssh NAME"),
        (("ssh-config", "nosuch"), 2, "machine 'nosuch': not found", "firkin ls"),
        (("proxy", "web", "9"), 125, "port 9 of the guest: agent: Connection refused", ""),
    ):
        done = firkin(machine, *words)
        text = done.stderr.decode()
        assert (done.returncode, done.stdout) == (code, b""), text
        assert why in text.splitlines()[0]
        assert hint in text
    done = firkin(machine, "ssh", "web", path="/nonexistent")
    assert done.returncode == 125
    assert done.stderr == b"error: ssh: program not found\nhint: sudo apt-get install openssh-client\n"


def test_a_machine_without_ssh_or_at_rest_is_told(machine: Machine) -> None:
    with (
        Firkin(machine._context.settings) as opened,
        opened.run(MachineSpec(name="plain", image="busybox", memory_mib=128)) as plain,
    ):
        for verb in ("ssh", "ssh-config"):
            done = firkin(plain, verb, "plain")
            assert done.returncode == 2
            assert done.stderr == (
                b"error: machine 'plain': image 'busybox' has no SSH server\nhint: firkin exec -it plain sh\n"
            )
        assert b"plain" not in firkin(plain, "ssh-config").stdout
        plain.kill()
        done = firkin(plain, "ssh", "plain")
        assert done.returncode == 2
        assert b"machine 'plain' is not running" in done.stderr


def test_a_login_that_is_killed_leaves_no_proxy(machine: Machine) -> None:
    environ = os.environ | {"FIRKIN_HOME": str(machine._context.paths.home)}
    login = subprocess.Popen([*FIRKIN, "ssh", "web", "echo up; sleep 1000"], stdout=subprocess.PIPE, env=environ)
    assert login.stdout is not None
    assert login.stdout.readline() == b"up\n"
    (proxy,) = children(login.pid)
    login.send_signal(signal.SIGKILL)
    login.wait()
    login.stdout.close()
    assert wait_until(lambda: not Path(f"/proc/{proxy}").exists(), timeout_s=10)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
