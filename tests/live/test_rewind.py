"""Back in place: what a machine was comes back, what makes it this one stays, and it is never left half."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin import aio
from firkin.errors import AgentError, EngineError, HostError, NotFound, UsageError
from firkin.host.process import kill, with_argument
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec
from firkin.store.machines import State

pytestmark = pytest.mark.live

SPEC = MachineSpec(name="box", image="busybox", memory_mib=128)


@pytest.fixture
def machine(firkin: Firkin) -> Machine:
    return firkin.run(SPEC)


def write(machine: Machine, text: str) -> None:
    machine.fs.write_text("/root/word", text)


def read(machine: Machine) -> str:
    return machine.fs.read_text("/root/word")


def what_stays(machine: Machine) -> tuple[object, ...]:
    record = machine.record
    script = "hostname; ip -4 addr show dev eth0 | grep inet; cat /sys/class/net/eth0/address; cat /etc/hosts"
    guest = machine.exec("sh", "-c", script)
    return record.id, record.name, record.address, record.network, record.lifetime, machine.link, guest.text


def boot_id(machine: Machine) -> str:
    return machine.exec("cat", "/proc/sys/kernel/random/boot_id").text


def test_memory_files_and_programs_are_those_of_then_and_the_rest_stays(firkin: Firkin, machine: Machine) -> None:
    write(machine, "before")
    then = machine.start("sleep", "1000", kept=True)
    stays, booted, engine = what_stays(machine), boot_id(machine), machine.process()
    machine.snapshot("calm")
    write(machine, "after")
    later = machine.start("sleep", "2000")
    machine.exec("sh", "-c", "echo said-before > /dev/ttyS0")

    machine.rewind("calm")

    assert not engine.alive()
    assert read(machine) == "before"
    assert what_stays(machine) == stays
    assert boot_id(machine) == booted
    commands = machine.exec("ps").text
    assert "sleep 1000" in commands
    assert "sleep 2000" not in commands
    assert [program.pid for program in machine.kept()] == [then.pid]
    machine.fs.write_bytes("/tmp/now", b"")
    assert abs(machine.fs.stat("/tmp/now").mtime_ns / 1e9 - time.time()) < 0.5
    machine.exec("sh", "-c", "echo said-after > /dev/ttyS0")
    machine.stop()
    log = machine.console_log.read_text()
    assert "said-before" in log
    assert "said-after" in log
    with pytest.raises(AgentError):
        later.wait()


def test_who_waits_for_a_program_is_told_of_the_rewind(machine: Machine) -> None:
    snapshot = machine.snapshot()
    told: list[AgentError] = []
    process = machine.start("sleep", "1000")

    def wait() -> None:
        with pytest.raises(AgentError) as error:
            process.wait()
        told.append(error.value)

    thread = threading.Thread(target=wait)
    thread.start()
    machine.rewind(snapshot)
    thread.join(timeout=10)
    assert str(told[0]) == "machine 'box' was rewound: what ran in it is gone"


def test_a_connection_of_somebody_else_hears_that_it_broke(firkin: Firkin, machine: Machine) -> None:
    machine.snapshot("calm")
    other = firkin.machine("box")
    with other.start("sleep", "1000") as process:
        machine.rewind("calm")
        with pytest.raises(AgentError) as error:
            process.wait()
        assert "rewound" in error.value.hint
    assert other.exec("echo", "again").text == "again\n"


def test_random_numbers_differ_after_each_return(machine: Machine) -> None:
    machine.snapshot("calm")
    drawn = []
    for _ in range(3):
        machine.rewind("calm")
        drawn.append(machine.exec("head", "-c", "16", "/dev/urandom").stdout)
    assert len(set(drawn)) == 3


def test_forth_and_back_again_with_the_network_at_work(machine: Machine) -> None:
    for number in range(4):
        write(machine, str(number))
        machine.snapshot(f"state-{number}")
    ping = ["ping", "-c", "1", "-W", "5", machine.address]
    for number in (2, 0, 3, 1, 1):
        machine.rewind(f"state-{number}")
        assert read(machine) == str(number)
        assert machine.inside(lambda: subprocess.run(ping, capture_output=True, check=False)).returncode == 0
        assert machine.exec("ping", "-c", "1", "-W", "5", str(machine.network.gateway.ip)).returncode == 0
    stats = machine.stats()
    assert stats.problems == ()
    assert stats.engine is not None


def test_a_paused_machine_runs_after_its_rewind(machine: Machine) -> None:
    write(machine, "before")
    machine.pause()
    snapshot = machine.snapshot()
    machine.rewind(snapshot)
    assert machine.record.state is State.RUNNING
    assert read(machine) == "before"


def test_a_fork_goes_back_to_what_it_was_forked_from_but_not_to_strangers(firkin: Firkin, machine: Machine) -> None:
    write(machine, "origin")
    snapshot = machine.snapshot("origin")
    (fork,) = snapshot.fork(names=["twig"], detach=True)
    write(fork, "grown")
    stays = what_stays(fork)
    fork.rewind("origin")
    assert read(fork) == "origin"
    assert what_stays(fork) == stays
    assert boot_id(fork) != boot_id(machine)
    fork.snapshot("twigs")
    with pytest.raises(UsageError, match="of machine 'twig', not of 'box'") as refusal:
        machine.rewind("twigs")
    assert "firkin fork twigs" in refusal.value.hint
    assert read(machine) == "origin"


def names(machine: Machine) -> tuple[str, ...]:
    """What a whole distribution goes by: host key, machine-id, boot id, host name."""
    files = ("/etc/ssh/ssh_host_ed25519_key.pub", "/etc/machine-id", "/proc/sys/kernel/random/boot_id")
    return (*(machine.fs.read_text(file) for file in files), machine.exec("hostname").text)


def test_a_distribution_keeps_its_names_and_its_fork_takes_its_own_again(firkin: Firkin) -> None:
    machine = firkin.run(MachineSpec(name="deb", image="debian", memory_mib=512, boot_timeout_s=200))
    assert wait_until(lambda: machine.fs.read_text("/etc/machine-id") != "", timeout_s=60)
    ours = names(machine)
    snapshot = machine.snapshot("calm")
    machine.rewind(snapshot)
    assert names(machine) == ours
    (fork,) = snapshot.fork(names=["twig"], detach=True)
    before = names(fork)
    fork.rewind(snapshot)
    after = names(fork)
    assert (after[0], after[3]) == (before[0], "twig\n")
    assert all(theirs != own for theirs, own in zip(after, ours, strict=True))
    done = subprocess.run(fork.ssh_argv(["hostname"]), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "twig\n"), done.stderr


def test_what_cannot_be_changes_nothing(machine: Machine) -> None:
    snapshot = machine.snapshot("calm")
    write(machine, "after")
    with machine.start("sleep", "1000") as process:
        with pytest.raises(NotFound):
            machine.rewind("nosuch")
        memory = machine._context.paths.snapshot_home(snapshot.id) / "memory"
        memory.rename(memory.with_suffix(".away"))
        with pytest.raises(HostError, match="missing"):
            machine.rewind("calm")
        memory.with_suffix(".away").rename(memory)
        assert machine.exec("kill", "-0", str(process.pid)).returncode == 0
    assert read(machine) == "after"
    machine.stop()
    with pytest.raises(UsageError, match="not running"):
        machine.rewind("calm")


def test_a_rewind_that_fails_leaves_the_machine_stopped(firkin: Firkin, machine: Machine) -> None:
    snapshot = machine.snapshot("calm")
    (machine._context.paths.snapshot_home(snapshot.id) / "state").write_bytes(b"no state at all")
    with pytest.raises(EngineError, match="could not be rewound, and was stopped") as failure:
        machine.rewind("calm")
    assert failure.value.hint
    assert machine.record.state is State.STOPPED
    assert with_argument("--id", machine.id) == []
    assert machine._context.journal.newest_first(machine.id) == []
    machine.remove()


REWIND = """
from firkin.manager.firkin import Firkin
machine = Firkin().machine("box")
print("go", flush=True)
machine.rewind("calm")
print("done", flush=True)
"""


@pytest.mark.parametrize("delay_ms", [5, 15, 40, 80, 120, 180, 300])
def test_kill_9_half_way_leaves_it_whole_or_stopped(
    open_firkin: Callable[[], Firkin], home: Path, delay_ms: int
) -> None:
    machine = open_firkin().run(SPEC)
    machine.snapshot("calm")
    before = machine.process()
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    child = subprocess.Popen([sys.executable, "-c", REWIND], env=environ, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == b"go\n"
        time.sleep(delay_ms / 1000)
        child.kill()
        done = child.stdout.read() == b"done\n"
    firkin = open_firkin()
    record = firkin.machine("box").record
    running = with_argument("--id", machine.id)
    if record.state is State.RUNNING:
        assert done or record.process == before or record.snapshot is not None
        assert record.process in running
        assert firkin.machine("box").exec("echo", "whole").text == "whole\n"
    else:
        assert record.state is State.STOPPED
        assert running == []
        assert firkin.context.journal.newest_first(machine.id) == []


def test_wait_and_logs_go_on_over_a_rewind(machine: Machine) -> None:
    machine.snapshot("calm")
    ended = threading.Event()

    def wait() -> None:
        machine.wait()
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    machine.rewind("calm")
    assert not ended.wait(0.5)
    machine.stop()
    assert ended.wait(10)
    waiting.join()


def test_two_rewinds_at_once_take_turns(open_firkin: Callable[[], Firkin]) -> None:
    machine = open_firkin().run(SPEC)
    write(machine, "calm")
    machine.snapshot("calm")
    failures: list[BaseException] = []

    def go_back() -> None:
        try:
            open_firkin().machine("box").rewind("calm")
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=go_back) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(with_argument("--id", machine.id)) == 1
    assert read(machine) == "calm"


class Oops(Exception):
    """What a tried block fails with."""


def tried(machine: Machine, act: Callable[[], object]) -> None:
    """A block that does this and then fails."""
    with machine.try_() as same:
        assert same is machine
        act()
        raise Oops


def test_a_tried_block_that_fails_has_not_happened(firkin: Firkin, machine: Machine) -> None:
    write(machine, "before")
    with pytest.raises(Oops):
        tried(machine, lambda: write(machine, "after"))
    assert read(machine) == "before"
    assert firkin.context.snapshots.all() == []
    assert list(firkin.context.paths.home.glob("snapshots/*")) == []


def test_a_tried_block_that_ends_well_stays_and_leaves_no_snapshot(firkin: Firkin, machine: Machine) -> None:
    engine = machine.process()
    with machine.try_(), machine.try_():
        write(machine, "after")
    assert read(machine) == "after"
    assert machine.process() == engine
    assert list(firkin.context.paths.home.glob("snapshots/*")) == []


def well_tried(machine: Machine, text: str) -> None:
    """A block that ends well."""
    with machine.try_():
        write(machine, text)


def test_tried_blocks_nest(machine: Machine) -> None:
    with machine.try_():
        write(machine, "outer")
        with pytest.raises(Oops):
            tried(machine, lambda: write(machine, "inner"))
        assert read(machine) == "outer"
    with pytest.raises(Oops):
        tried(machine, lambda: well_tried(machine, "inner"))
    assert read(machine) == "outer"


def test_a_machine_that_goes_away_in_a_tried_block_is_told(machine: Machine) -> None:
    with pytest.raises(UsageError, match="not running"):
        tried(machine, lambda: kill(machine.process()))


async def tried_on_a_loop(machine: aio.Machine) -> None:
    async with machine.try_():
        await machine.fs.write_text("/root/word", "tried")
        raise Oops


async def on_a_loop(firkin: Firkin) -> None:
    async with aio.Machine(firkin.machine("box")) as machine:
        await machine.fs.write_text("/root/word", "before")
        snapshot = aio.Snapshot(firkin.machine("box").snapshot("calm"))
        process = await machine.start("sleep", "1000")
        await machine.fs.write_text("/root/word", "after")
        await machine.rewind(snapshot)
        with pytest.raises(AgentError, match="was rewound"):
            await process.wait()
        assert await machine.fs.read_text("/root/word") == "before"
        with pytest.raises(Oops):
            await tried_on_a_loop(machine)
        assert await machine.fs.read_text("/root/word") == "before"


def test_the_twin_for_asyncio_does_the_same(firkin: Firkin, machine: Machine) -> None:
    asyncio.run(on_a_loop(firkin))
    assert read(machine) == "before"


def test_the_command_line_goes_back_too(home: Path, machine: Machine) -> None:
    write(machine, "before")
    environ = os.environ | {"FIRKIN_HOME": str(home)}

    def cli(*argv: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "firkin.cli", *argv]
        return subprocess.run(program, env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert cli("snapshot", "create", "box", "--name", "calm").returncode == 0
    write(machine, "after")
    done = cli("rewind", "box", "--to", "calm")
    assert (done.returncode, done.stdout, done.stderr) == (0, "box\n", "")
    assert read(machine) == "before"
    assert "restore" in cli("inspect", "--timeline", "box").stdout
    done = cli("rewind", "box", "--to", "nosuch")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: snapshot 'nosuch': not found")
