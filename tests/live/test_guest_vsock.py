"""The agent in a real guest, over vsock: hello, programs, who may connect, and the machine's end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from guest_qemu import make_squashfs

from firkin.agent.client import AgentConnection, connect
from firkin.agent.hello import HelloListener
from firkin.agent.initrd import GuestConfig, GuestFile, build_initrd
from firkin.agent.messages import ExecRefused, Hello
from firkin.errors import AgentError, ExecTimeout

pytestmark = pytest.mark.live


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squashfs(tmp_path_factory.mktemp("image"))


@dataclass
class Booted:
    vmm: subprocess.Popen[bytes]
    uds: Path
    hello: Hello
    ready_s: float

    def agent(self) -> AgentConnection:
        return connect(self.uds, 10.0)


@pytest.fixture
def booted(image: Path, tmp_path: Path) -> Iterator[Booted]:
    yield from boot(image, tmp_path, GuestConfig(hostname="box", seed=bytes(64), env=("FROM=image",)))


def boot(image: Path, folder: Path, config: GuestConfig) -> Iterator[Booted]:
    """A machine under firkin-vmm whose agent has called."""
    kernel = os.environ.get("FIRKIN_TEST_KERNEL")
    if not kernel or os.geteuid() != 0:
        pytest.skip("needs FIRKIN_TEST_KERNEL and root")
    (folder / "initrd.cpio").write_bytes(build_initrd(config))
    description = {
        "boot-source": {
            "kernel_image_path": kernel,
            "initrd_path": str(folder / "initrd.cpio"),
            "boot_args": "reboot=t panic=-1 quiet console=ttyS0",
        },
        "drives": [
            {"drive_id": "root", "path_on_host": str(image), "is_root_device": False, "is_read_only": True},
        ],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
        "vsock": {"guest_cid": 3, "uds_path": str(folder / "v.sock")},
    }
    (folder / "vm.json").write_text(json.dumps(description))
    argv = [sys.executable, "-m", "firkin.engine", "--no-api", "--config-file", str(folder / "vm.json")]
    started = time.monotonic()
    with (folder / "console").open("wb") as console, HelloListener(folder / "v.sock") as listener:
        vmm = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, cwd=folder)
        try:
            hello = listener.wait(60.0, lambda: vmm.poll() is None)
            yield Booted(vmm, folder / "v.sock", hello, time.monotonic() - started)
        except AgentError as error:
            raise AssertionError((folder / "console").read_text(errors="replace")) from error
        finally:
            vmm.terminate()
            try:
                vmm.wait(10)
            except subprocess.TimeoutExpired:
                vmm.kill()
                vmm.wait()


def test_the_agent_calls_and_serves(booted: Booted) -> None:
    hello = booted.hello
    assert hello.hostname == "box"
    assert 0 < hello.init_ms <= hello.root_ms <= hello.network_ms <= hello.ready_ms < 60_000
    with booted.agent() as guest:
        assert guest.hello == hello
        result = guest.run("sh", "-c", "echo $FROM $GIVEN; hostname; id -u; cat", env=["GIVEN=here"], stdin=b"in")
        assert (result.stdout, result.returncode) == (b"image here\nbox\n0\nin", 0)
        with pytest.raises(ExecRefused):
            guest.run("nothing-like-it")
        data = os.urandom(2_000_000)
        assert guest.run("cat", stdin=data).stdout == data
        with guest.start(["sh", "-c", "tty; stty size"], tty=(40, 100)) as shell:
            assert shell.result(timeout_s=20).stdout.endswith(b"40 100\r\n")
        guest.sync()


@pytest.mark.parametrize("verb", ["poweroff", "reboot"])
def test_the_machine_ends_when_it_is_asked_to(booted: Booted, verb: str) -> None:
    with booted.agent() as guest:
        getattr(guest, verb)()
    assert booted.vmm.wait(30) == 0


def test_a_timeout_kills_and_leaves_no_zombie(booted: Booted) -> None:
    with booted.agent() as guest, pytest.raises(ExecTimeout, match="still running"):
        guest.run("sh", "-c", "sleep 61 & sleep 62", timeout_s=0.5)
    with booted.agent() as guest:
        deadline = time.monotonic() + 10
        while b"sleep 6" in (listing := guest.run("ps", "-o", "stat,args").stdout):
            assert time.monotonic() < deadline, listing
        assert not [line for line in listing.splitlines() if line.startswith(b"Z")]


INTRUDER = r"""
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

int main(void)
{
    for (unsigned cid = 1; cid <= 3; cid += 2) {
        struct sockaddr_vm agent = {.svm_family = AF_VSOCK, .svm_port = 1024, .svm_cid = cid};
        char byte;
        int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        int connected = connect(fd, (struct sockaddr *)&agent, sizeof agent) == 0;
        printf("cid %u connected %d read %d\n", cid, connected, (int)read(fd, &byte, 1));
        close(fd);
    }
    return 0;
}
"""


def test_programs_in_the_guest_cannot_use_the_agent(image: Path, tmp_path: Path) -> None:
    (tmp_path / "intruder.c").write_text(INTRUDER)
    headers = ["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"]
    program = tmp_path / "intruder"
    subprocess.run(["musl-gcc", "-static", "-Os", "-s", *headers, "-o", program, tmp_path / "intruder.c"], check=True)
    config = GuestConfig(files=(GuestFile("/intruder", program.read_bytes(), 0o755),))
    for booted in boot(image, tmp_path, config):
        with booted.agent() as guest:
            said = guest.run("/intruder").stdout.decode()
    assert (
        "cid 1 connected 1 read 0\n" in said or "cid 1 connected 1 read -1\n" in said
    )  # taken, and hung up on at once
    assert "connected 1 read 1" not in said
