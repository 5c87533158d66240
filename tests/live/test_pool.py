"""Pools: machines held ready, claimed by any process, replaced in the background, and healed after any death."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firkin.errors import FirkinError, InvalidSpec, NameTaken, NotFound, UsageError
from firkin.host.process import kill, with_argument
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.pool import Pool
from firkin.settings import load
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime, MachineRecord, State

pytestmark = pytest.mark.live

SPEC = MachineSpec(image="busybox", memory_mib=128)
FILL_S = 60


def environ(home: Path) -> dict[str, str]:
    return {"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build", "FIRKIN_IMAGE": "busybox"}


@pytest.fixture
def open_it(home: Path, open_firkin: Callable[[], Firkin]) -> Iterator[Callable[[], Firkin]]:
    """Open the home; its pools, and then by `open_firkin` its machines, are removed at the end."""
    del open_firkin
    opened: list[Firkin] = []

    def open_it() -> Firkin:
        opened.append(Firkin(load(environ(home))))
        return opened[-1]

    yield open_it
    last = open_it()
    for record in last.pools():
        last.pool(record.name).remove()
    for firkin in opened:
        firkin.close()


@pytest.fixture
def firkin(open_it: Callable[[], Firkin]) -> Firkin:
    return open_it()


def fill(pool: Pool) -> None:
    """Wait until it is full, and its filler is gone."""
    full = wait_until(lambda: pool.ready == pool.record.size and not pool.filling, timeout_s=FILL_S, interval_s=0.02)
    assert full, pool.log.read_text()


def members(firkin: Firkin, pool: Pool) -> list[MachineRecord]:
    return firkin.context.machines.members(pool.id)


def processes(pool: Pool) -> list[int]:
    return [ref.pid for ref in with_argument("--pool", pool.id)]


def test_a_claim_takes_the_one_that_waits_longest_and_another_comes(firkin: Firkin) -> None:
    with firkin.create_pool("web", SPEC, size=2) as pool:
        fill(pool)
        first, second = members(firkin, pool)
        assert first.state is State.READY
        with pool.claim() as machine:
            assert machine.id == first.id
            assert machine.exec("hostname").stdout.decode().strip() == machine.name
            gateway = str(machine.network.gateway.ip)
            assert machine.exec("ping", "-c", "1", "-W", "5", gateway).returncode == 0
            assert machine.record.state is State.RUNNING
            fill(pool)
            assert members(firkin, pool)[0].id == second.id
    assert firkin.records() == []


def test_a_machine_that_waited_has_the_right_time(firkin: Firkin) -> None:
    with firkin.create_pool("web", SPEC, size=1) as pool:
        fill(pool)
        time.sleep(3)
        with pool.claim() as machine:
            assert abs(float(machine.exec("date", "+%s").stdout) - time.time()) < 1.5


def test_members_wait_without_using_the_processor_and_answer_nobody(firkin: Firkin) -> None:
    with firkin.create_pool("web", SPEC, size=1) as pool:
        fill(pool)
        (member,) = members(firkin, pool)
        assert member.process is not None
        stat = Path(f"/proc/{member.process.pid}/stat")
        before = sum(map(int, stat.read_text().split()[13:17]))
        time.sleep(1)
        spent = sum(map(int, stat.read_text().split()[13:17])) - before
        assert spent <= 2  # of 100 ticks
        with pytest.raises(UsageError, match="not running"):
            firkin.machine(member.name).exec("true")


def test_claims_beyond_what_waits_are_forked_at_once(firkin: Firkin) -> None:
    with firkin.create_pool("web", SPEC, size=1) as pool:
        fill(pool)
        machines = [pool.claim() for _ in range(3)]
        assert len({machine.id for machine in machines}) == 3
        assert {machine.exec("true").returncode for machine in machines} == {0}
        for machine in machines:
            machine.remove(force=True)


def _claim(home: str, barrier: object, names: object) -> None:
    with Firkin(load(environ(Path(home)))) as firkin:
        barrier.wait()  # type: ignore[attr-defined]
        machine = firkin.pool("web").claim(detach=True)
        machine.exec("true", check=True)
        names.put(machine.name)  # type: ignore[attr-defined]


def test_processes_that_claim_at_once_get_a_machine_each(firkin: Firkin, home: Path) -> None:
    fresh = multiprocessing.get_context("spawn")
    barrier, names = fresh.Barrier(4), fresh.Queue()
    with firkin.create_pool("web", SPEC, size=4) as pool:
        fill(pool)
        claimers = [fresh.Process(target=_claim, args=(str(home), barrier, names)) for _ in range(4)]
        for claimer in claimers:
            claimer.start()
        claimed = {names.get(timeout=60) for _ in claimers}
        for claimer in claimers:
            claimer.join(30)
        assert len(claimed) == 4
        assert claimed <= {record.name for record in firkin.records() if record.state is State.RUNNING}
        fill(pool)


def test_a_pool_of_a_snapshot_holds_what_was_done_before(firkin: Firkin) -> None:
    with firkin.run(SPEC) as machine:
        machine.fs.write_bytes("/root/prepared", b"yes")
        snapshot = machine.snapshot("prepared")
    with firkin.create_pool("web", snapshot, size=1) as pool:
        fill(pool)
        with pytest.raises(UsageError, match="web"):
            snapshot.remove()
        with pool.claim() as claimed:
            assert claimed.fs.read_bytes("/root/prepared") == b"yes"
            assert claimed.name.startswith("web-")
    snapshot.remove()


@pytest.mark.parametrize("delay_s", [0.1, 0.3, 0.6])
def test_a_killed_filler_leaves_nothing_and_the_next_claim_starts_another(
    open_it: Callable[[], Firkin], delay_s: float
) -> None:
    firkin = open_it()
    with firkin.create_pool("web", SPEC, size=2) as pool:
        time.sleep(delay_s)
        for ref in with_argument("--pool", pool.id):
            os.kill(ref.pid, signal.SIGKILL)
        assert wait_until(lambda: not pool.filling, timeout_s=5, interval_s=0.01)
        healed = open_it()
        assert {record.state for record in healed.records()} <= {State.READY}
        with healed.pool("web").claim() as machine:
            assert machine.exec("true").returncode == 0
        fill(pool)


def test_a_member_whose_engine_was_killed_is_never_handed_out(open_it: Callable[[], Firkin]) -> None:
    firkin = open_it()
    with firkin.create_pool("web", SPEC, size=1) as pool:
        fill(pool)
        (member,) = members(firkin, pool)
        assert member.process is not None
        kill(member.process)
        with pool.claim() as machine:
            assert machine.id != member.id
            assert machine.exec("true").returncode == 0
        fill(pool)
        (second,) = members(firkin, pool)
        assert second.process is not None
        kill(second.process)
        assert second.id not in {record.id for record in open_it().records()}


def test_a_claimer_that_is_killed_takes_its_machine_along(open_it: Callable[[], Firkin], home: Path) -> None:
    firkin = open_it()
    with firkin.create_pool("web", SPEC, size=1) as pool:
        fill(pool)
        (member,) = members(firkin, pool)
        program = (
            "import firkin, time; m = firkin.Firkin().pool('web').claim(); print(m.id, flush=True); time.sleep(60)"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", program], env=os.environ | environ(home), stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline().strip() == member.id
        child.kill()
        child.wait()
        child.stdout.close()
        assert member.id not in {record.id for record in open_it().records()}


def test_removing_a_pool_ends_filler_and_members_but_nobody_elses_machine(open_it: Callable[[], Firkin]) -> None:
    firkin = open_it()
    pool = firkin.create_pool("web", SPEC, size=3)
    assert wait_until(lambda: pool.ready >= 1, timeout_s=FILL_S, interval_s=0.01)
    machine = pool.claim(detach=True)
    pool.remove()  # while it is being filled
    assert [record.id for record in firkin.records()] == [machine.id]
    assert machine.exec("true").returncode == 0
    assert wait_until(lambda: processes(pool) == [], timeout_s=10, interval_s=0.02)
    assert [record.id for record in open_it().records()] == [machine.id]
    with pytest.raises(NotFound):
        firkin.pool("web")


def test_members_of_a_pool_that_was_removed_half_way_are_removed_by_the_next_firkin(
    open_it: Callable[[], Firkin],
) -> None:
    firkin = open_it()
    pool = firkin.create_pool("web", SPEC, size=1)
    fill(pool)
    firkin.context.pools.remove(pool.id)  # as far as a `pool rm` got that was killed
    assert open_it().records() == []


@pytest.mark.parametrize(
    ("name", "size", "error"),
    [("web", 0, InvalidSpec), ("web", 1001, InvalidSpec), ("No!", 1, InvalidSpec), ("taken", 1, NameTaken)],
)
def test_a_pool_that_cannot_be_is_refused_before_anything_boots(
    firkin: Firkin, name: str, size: int, error: type[FirkinError]
) -> None:
    with firkin.run(SPEC) as machine, machine.snapshot("any") as snapshot:
        taken = firkin.create_pool("taken", snapshot, size=1)
        with pytest.raises(error) as refusal:
            firkin.create_pool(name, MachineSpec(image="busybox", memory_mib=144), size=size)
        assert refusal.value.hint
        taken.remove()
    assert len(firkin.context.snapshots.all()) == 1  # the template of SPEC alone


def test_the_command_line_makes_lists_claims_and_removes(firkin: Firkin, home: Path) -> None:
    def run(*argv: str) -> str:
        command = [sys.executable, "-m", "firkin.cli", *argv]
        env = os.environ | environ(home)
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout

    assert run("pool", "create", "web", "--size", "1", "-m", "128", "busybox") == "web\n"
    fill(firkin.pool("web"))
    assert "web" in run("pool", "ls")
    (member,) = members(firkin, firkin.pool("web"))
    assert f'"{member.name}"' in run("pool", "ls", "--json")
    assert "ready" in run("ls")
    name = run("pool", "claim", "--rm", "web").strip()
    assert name == member.name
    assert run("exec", name, "hostname").strip() == name
    assert firkin.machine(name).record.lifetime is Lifetime.UNTIL_STOPPED
    assert run("pool", "rm", "web") == "web\n"
    assert [record.name for record in firkin.records()] == [name]
