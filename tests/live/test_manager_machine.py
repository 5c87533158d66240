"""Machines from the manager's side: boot, exec, stop, remove, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin.errors import FirkinError, InvalidSpec, NameTaken, NotFound, UsageError
from firkin.host.process import with_argument
from firkin.manager.firkin import Firkin
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime, State

pytestmark = pytest.mark.live

SPEC = MachineSpec(image="busybox", memory_mib=128)


def netns_of(firkin: Firkin) -> set[str]:
    folder = Path("/run/netns")
    tag = firkin.context.tag
    return {entry.name for entry in folder.iterdir() if entry.name.endswith(tag)} if folder.is_dir() else set()


def expect_nothing_left(firkin: Firkin) -> None:
    paths = firkin.context.paths
    assert netns_of(firkin) == set()
    assert firkin.context.ledger.owners() == []
    assert list(paths.run.glob("machines/*")) == []
    assert list(paths.home.glob("machines/*")) == []
    assert list(paths.work.glob("*")) == []


@pytest.mark.parametrize("kernel", ["build", "debian"])
def test_a_machine_boots_answers_and_goes_without_a_trace(firkin: Firkin, kernel: str) -> None:
    with firkin.run(MachineSpec(image="busybox", memory_mib=128, kernel=kernel)) as machine:
        done = machine.exec("uname", "-r")
        assert (done.returncode, done.stdout.decode().strip()) == (0, firkin.kernel(kernel).version)
        assert machine.exec("sh", "-c", "echo out; echo err >&2; exit 7").returncode == 7
        assert machine.exec("hostname").stdout.decode().strip() == machine.name
        assert machine.exec("touch", "/root/written").returncode == 0
        machine_id = machine.id
    assert with_argument("--id", machine_id) == []
    expect_nothing_left(firkin)


def test_ping_works_both_ways(firkin: Firkin) -> None:
    with firkin.run(SPEC) as machine:
        gateway = str(machine.network.gateway.ip)
        assert b" 0% packet loss" in machine.exec("ping", "-c", "2", "-W", "5", gateway).stdout
        assert b" 0% packet loss" in machine.exec("ping", "-c", "2", "-W", "5", str(machine.host_address())).stdout
        ping = ["ping", "-c", "2", "-W", "5", machine.address]
        done = machine.inside(lambda: subprocess.run(ping, capture_output=True, check=False))
        assert b" 0% packet loss" in done.stdout


def test_two_machines_share_a_network_and_the_last_takes_it_down(firkin: Firkin) -> None:
    first, second = firkin.run(SPEC), firkin.run(SPEC)
    assert first.address != second.address
    first.remove(force=True)
    assert netns_of(firkin) != set()
    assert second.exec("true").returncode == 0
    second.remove(force=True)
    expect_nothing_left(firkin)


def test_stop_is_orderly_and_keeps_the_log(firkin: Firkin) -> None:
    machine = firkin.run(SPEC)
    machine.stop()
    assert machine.record.state is State.STOPPED
    assert machine.console_log.exists()
    with pytest.raises(UsageError, match="not running"):
        machine.exec("true")
    machine.remove()
    expect_nothing_left(firkin)


def test_a_taken_name_is_refused_before_anything_is_touched(firkin: Firkin) -> None:
    spec = MachineSpec(image="busybox", memory_mib=128, name="web")
    with firkin.run(spec) as machine:
        with pytest.raises(NameTaken):
            firkin.run(spec)
        assert machine.exec("true").returncode == 0
        assert len(firkin.records()) == 1


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (MachineSpec(image="nosuch"), NotFound),
        (MachineSpec(image="busybox", kernel="nosuch"), NotFound),
        (MachineSpec(image="busybox", vcpus=33), InvalidSpec),
        (MachineSpec(image="busybox", memory_mib=0), InvalidSpec),
        (MachineSpec(image="debian", command=("ls",)), UsageError),
    ],
)
def test_bad_input_leaves_nothing(firkin: Firkin, spec: MachineSpec, error: type[FirkinError]) -> None:
    with pytest.raises(error) as refusal:
        firkin.run(spec)
    assert refusal.value.hint
    assert firkin.records() == []
    expect_nothing_left(firkin)


def test_a_guest_that_never_answers_is_undone(firkin: Firkin) -> None:
    with pytest.raises(FirkinError):
        firkin.run(MachineSpec(image="busybox", memory_mib=128, boot_args="rdinit=/nosuch", boot_timeout_s=5))
    assert firkin.records() == []
    expect_nothing_left(firkin)


def test_a_killed_engine_is_noticed(open_firkin: Callable[[], Firkin]) -> None:
    firkin = open_firkin()
    machine = firkin.run(SPEC)
    os.kill(machine.process().pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while machine.record.process is not None and machine.record.process.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    again = open_firkin()
    assert again.machine(machine.id).record.state is State.STOPPED
    assert netns_of(again) == set()


@pytest.mark.parametrize("delay_s", [0.05, 0.25, 0.5])
def test_kill_9_of_firkin_while_it_boots_is_healed_by_the_next_command(
    open_firkin: Callable[[], Firkin], home: Path, delay_s: float
) -> None:
    environ = os.environ | {"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build"}
    program = [sys.executable, "-m", "firkin.cli", "run", "--rm", "-m", "128", "busybox"]
    child = subprocess.Popen(program, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(0.2 + delay_s)
    child.kill()
    child.wait()
    firkin = open_firkin()
    assert firkin.records() == []
    expect_nothing_left(firkin)


def test_a_session_machine_ends_with_its_process(open_firkin: Callable[[], Firkin]) -> None:
    firkin = open_firkin()
    machine = firkin.run(SPEC, lifetime=Lifetime.SESSION)
    assert open_firkin().machine(machine.id).record.state is State.RUNNING
    assert machine._session is not None
    os.close(machine._session)  # what the kernel does when the process dies
    machine._session = None
    assert open_firkin().records() == []
