"""Paused machines: what they refuse, what may be done to them, and that store and engine agree after any end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin import aio
from firkin.errors import UsageError
from firkin.fcapi.instance import InstanceState, VmState
from firkin.host.usage import usage
from firkin.manager import pausing
from firkin.manager.changes import Frozen
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec
from firkin.store.machines import State
from firkin.vmm.boot import API_SOCKET
from firkin.vmm.client import ApiClient

pytestmark = pytest.mark.live

SPEC = MachineSpec(name="box", image="busybox", memory_mib=128)


@pytest.fixture
def machine(firkin: Firkin) -> Machine:
    return firkin.run(SPEC)


def engine_state(machine: Machine) -> InstanceState:
    with ApiClient(machine.run_folder / API_SOCKET) as api:
        return api.info().state


def owes_nothing(machine: Machine) -> bool:
    return not machine._context.journal.holds(machine.id, "frozen")


def test_a_paused_machine_stands_still_and_goes_on_where_it_was(firkin: Firkin, machine: Machine) -> None:
    with machine.start("sh", "-c", "while :; do :; done"):
        machine.pause()
        assert (machine.record.state, engine_state(machine)) == (State.PAUSED, InstanceState.PAUSED)
        before = usage(machine.process()).cpu_s
        time.sleep(0.5)
        assert usage(machine.process()).cpu_s - before < 0.1
        machine.resume()
        assert (machine.record.state, engine_state(machine)) == (State.RUNNING, InstanceState.RUNNING)
    assert machine.exec("echo", "here").text == "here\n"
    assert owes_nothing(machine)


def expect_refusal(act: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match="machine 'box' is paused") as refusal:
        act()
    assert refusal.value.hint == "firkin resume box"


def test_what_asks_a_paused_guest_is_refused_at_once(firkin: Firkin, machine: Machine) -> None:
    assert machine.exec("true").returncode == 0  # over a connection that stands
    other = firkin.machine("box")
    machine.pause()
    for handle in (machine, other):
        expect_refusal(lambda: handle.exec("true"))  # noqa: B023 - called at once
        expect_refusal(lambda: handle.fs.stat("/"))  # noqa: B023
        expect_refusal(handle.top)
        expect_refusal(lambda: handle.dial(22))  # noqa: B023
    other.resume()
    assert machine.exec("true").returncode == 0


async def twice(firkin: Firkin) -> None:
    async with aio.Machine(firkin.machine("box")) as machine:
        await machine.exec("true")
        await machine.pause()
        with pytest.raises(UsageError, match="paused"):
            await machine.exec("true")
        await machine.resume()
        await machine.exec("true", check=True)


def test_the_twin_for_asyncio_does_the_same(firkin: Firkin, machine: Machine) -> None:
    import asyncio

    asyncio.run(twice(firkin))
    assert machine.record.state is State.RUNNING


def skew_s(machine: Machine) -> float:
    """How far the guest's clock is ahead of ours, by the time that it gives to a file."""
    earliest = time.time()
    machine.fs.write_bytes("/tmp/now", b"")
    latest = time.time()
    told = machine.fs.stat("/tmp/now").mtime_ns / 1e9
    return min(0.0, told - earliest) + max(0.0, told - latest)


def test_the_clock_is_right_after_a_pause(machine: Machine) -> None:
    machine.pause()
    time.sleep(1)
    machine.resume()
    assert abs(skew_s(machine)) < 0.2


def test_the_clock_is_right_after_snapshots_and_forks(machine: Machine) -> None:
    for _ in range(3):
        machine.snapshot().remove()
    assert abs(skew_s(machine)) < 0.2
    for _ in range(3):
        machine.fork(1)[0].remove(force=True)
    assert abs(skew_s(machine)) < 0.2


def test_pausing_and_resuming_twice_is_fine(machine: Machine) -> None:
    machine.resume()
    machine.pause()
    machine.pause()
    assert engine_state(machine) is InstanceState.PAUSED
    machine.resume()
    machine.resume()
    assert engine_state(machine) is InstanceState.RUNNING
    assert owes_nothing(machine)


def test_a_program_that_runs_meanwhile_only_waits(machine: Machine) -> None:
    with machine.start("sh", "-c", "sleep 0.3; echo late") as process:
        machine.pause()
        with pytest.raises(TimeoutError):
            process.read(timeout_s=1.0)
        machine.resume()
        assert process.result(timeout_s=10).text == "late\n"


def test_a_paused_machine_is_stopped_in_order(machine: Machine) -> None:
    machine.pause()
    machine.stop()
    assert machine.record.state is State.STOPPED
    assert "reboot: Restarting system" in machine.console_log.read_text()


def test_a_paused_machine_is_killed_and_is_removed_by_force_only(firkin: Firkin, machine: Machine) -> None:
    machine.pause()
    with pytest.raises(UsageError, match="is paused") as refusal:
        machine.remove()
    assert "firkin stop box" in refusal.value.hint
    machine.kill()
    assert machine.record.state is State.STOPPED
    with pytest.raises(UsageError, match="not running"):
        machine.pause()
    again = firkin.run(MachineSpec(name="again", image="busybox", memory_mib=128))
    again.pause()
    again.remove(force=True)
    assert [record.name for record in firkin.records()] == ["box"]


def test_the_next_command_leaves_a_paused_machine_paused(open_firkin: Callable[[], Firkin]) -> None:
    machine = open_firkin().run(SPEC)
    machine.pause()
    assert open_firkin().machine("box").record.state is State.PAUSED
    assert engine_state(machine) is InstanceState.PAUSED
    os.kill(machine.process().pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while (process := machine.record.process) is not None and process.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_firkin().machine("box").record.state is State.STOPPED


def dies_pausing_before_the_engine_knows(machine: Machine) -> None:
    machine._context.ledger.do(machine.id, Frozen())


def dies_pausing_before_the_store_knows(machine: Machine) -> None:
    pausing._freeze(machine._context, machine.record)


def dies_resuming_before_the_engine_knows(machine: Machine) -> None:
    machine.pause()
    machine._context.ledger.do(machine.id, Frozen())


def dies_resuming_before_the_store_knows(machine: Machine) -> None:
    dies_resuming_before_the_engine_knows(machine)
    pausing._set(machine._context, machine.record, VmState.RESUMED)


DEATHS = (
    dies_pausing_before_the_engine_knows,
    dies_pausing_before_the_store_knows,
    dies_resuming_before_the_engine_knows,
    dies_resuming_before_the_store_knows,
)


@pytest.mark.parametrize("death", DEATHS)
def test_a_death_half_way_is_healed_by_letting_the_guest_run(
    open_firkin: Callable[[], Firkin], death: Callable[[Machine], None]
) -> None:
    machine = open_firkin().run(SPEC)
    death(machine)
    healed = open_firkin().machine("box")
    assert (healed.record.state, engine_state(healed)) == (State.RUNNING, InstanceState.RUNNING)
    assert owes_nothing(healed)
    assert healed.exec("true").returncode == 0


TOGGLE = """
import sys
from firkin.manager.firkin import Firkin
machine = Firkin().machine("box")
print("go", flush=True)
while True:
    machine.pause()
    machine.resume()
"""


def test_kill_9_at_any_moment_leaves_store_and_engine_agreed(open_firkin: Callable[[], Firkin], home: Path) -> None:
    machine = open_firkin().run(SPEC)
    for delay_ms in (0, 3, 7, 12, 20):
        environ = os.environ | {"FIRKIN_HOME": str(home)}
        child = subprocess.Popen([sys.executable, "-c", TOGGLE], env=environ, stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child, child.stdout:
            assert child.stdout.readline() == b"go\n"
            time.sleep(delay_ms / 1000)
            child.kill()
        record = open_firkin().machine("box").record
        assert str(record.state) == engine_state(machine).value.lower()
        assert owes_nothing(machine)
        machine.resume()
        assert machine.exec("true").returncode == 0


def test_two_firkins_at_once_take_turns(open_firkin: Callable[[], Firkin]) -> None:
    machine = open_firkin().run(SPEC)
    failures: list[BaseException] = []

    def toggle() -> None:
        try:
            mine = open_firkin().machine("box")
            for _ in range(15):
                mine.pause()
                mine.resume()
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=toggle) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (machine.record.state, engine_state(machine)) == (State.RUNNING, InstanceState.RUNNING)
    assert owes_nothing(machine)


def firkin_cli(home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "firkin.cli", *argv]
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    return subprocess.run(program, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_line_says_paused(home: Path, machine: Machine) -> None:
    done = firkin_cli(home, "pause", "box")
    assert (done.returncode, done.stdout) == (0, "box\n")
    assert " paused " in firkin_cli(home, "ls").stdout
    done = firkin_cli(home, "exec", "box", "true")
    assert (done.returncode, done.stderr) == (2, "error: machine 'box' is paused\nhint: firkin resume box\n")
    assert firkin_cli(home, "resume", "box", "nosuch").returncode == 2
    assert firkin_cli(home, "exec", "box", "true").returncode == 0
