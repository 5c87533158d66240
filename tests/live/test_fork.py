"""Forks: machines that go on from where another one is, and then go their own way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import KERNEL

from firkin.errors import EngineError, InvalidSpec, NameTaken, UsageError
from firkin.host import netns
from firkin.host.netlink import Rtnl
from firkin.host.process import ProcessRef, all_pids, with_argument
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.settings import load
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime, State

pytestmark = pytest.mark.live

SPEC = MachineSpec(name="box", image="busybox", memory_mib=64)
COUNT_FOR_EVER = "i=0; while :; do i=$((i+1)); echo $i > /run/count; sleep 0.02; done"
ADD_UP = "n=0; for i in $(seq 1 200); do n=$((n + i)); done; echo $n $(md5sum < /bin/busybox)"


def opened(home: Path) -> Firkin:
    """Every machine boots: these tests make their own snapshots, and look at what is left of them."""
    return Firkin(load({"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": KERNEL, "FIRKIN_COLD": "1"}))


@pytest.fixture
def firkin(home: Path) -> Iterator[Firkin]:
    with opened(home) as firkin:
        yield firkin
        for record in firkin.records():
            firkin.machine(record.id).remove(force=True)


@contextmanager
def removed(machines: list[Machine]) -> Iterator[list[Machine]]:
    try:
        yield machines
    finally:
        for machine in machines:
            machine.remove(force=True)


def say(machine: Machine, script: str) -> str:
    return machine.exec("sh", "-c", script, timeout_s=60, check=True).text.strip()


def taps(firkin: Firkin, machine: Machine) -> set[str]:
    def look() -> set[str]:
        with Rtnl() as rtnl:
            return {link.name for link in rtnl.links() if link.name.startswith("fktap")}

    netns_name = machine.network.netns
    assert netns_name is not None
    return netns.run_in(netns_name, look)


def expect_only(firkin: Firkin, *machines: Machine) -> None:
    """These machines, and no trace of any other."""
    context, ids = firkin.context, {machine.id for machine in machines}
    assert {record.id for record in firkin.records()} == ids
    assert {path.name for path in context.paths.run.glob("machines/*")} == ids
    assert {path.name for path in context.paths.home.glob("machines/*")} == ids
    assert list(context.paths.home.glob("snapshots/*")) == []
    assert context.snapshots.all() == []
    assert {owner for owner in context.ledger.owners() if not owner.startswith("network:")} == ids
    assert taps(firkin, machines[0]) == {machine.link.tap for machine in machines}
    assert all(machine.record.state is State.RUNNING for machine in machines)


def test_forks_go_on_from_where_the_machine_was_and_then_go_their_own_way(firkin: Firkin) -> None:
    machine = firkin.run(SPEC)
    say(machine, f"echo before > /root/mark; ({COUNT_FOR_EVER}) >/dev/null 2>&1 &")
    with removed(machine.fork(2)) as (one, two):
        at = int(say(machine, "cat /run/count"))
        assert [say(fork, "cat /root/mark") for fork in (one, two)] == ["before", "before"]
        say(one, "echo one > /root/mark")
        say(machine, "echo parent > /root/mark")
        assert [say(each, "cat /root/mark") for each in (machine, one, two)] == ["parent", "one", "before"]
        assert int(say(one, "sleep 0.2; cat /run/count")) > 0
        assert int(say(machine, "sleep 0.2; cat /run/count")) > at
        assert len({each.address for each in (machine, one, two)}) == 3
        assert one.record.snapshot == two.record.snapshot is not None
        assert one.record.timeline["agent ready"] > one.record.timeline["snapshot loaded"]
    expect_only(firkin, machine)


def test_in_a_fork_kept_programs_go_on_and_those_of_a_connection_end(firkin: Firkin) -> None:
    machine = firkin.run(SPEC)
    kept = machine.start("sleep", "1001", kept=True)
    with machine.start("sleep", "1002"), machine.fork()[0] as fork:
        assert wait_until(lambda: "sleep 1002" not in say(fork, "ps"), timeout_s=10)
        assert [program.pid for program in fork.kept()] == [kept.pid]
        assert "sleep 1001" in say(fork, "ps")
        assert "sleep 1002" in say(machine, "ps")


def test_a_fork_ends_with_its_scope_and_a_detached_one_outlives_the_process(firkin: Firkin) -> None:
    machine = firkin.run(SPEC)
    with machine.fork()[0] as fork:
        assert fork.record.lifetime is Lifetime.SESSION
    expect_only(firkin, machine)
    [fork] = machine.fork(names=["copy"], detach=True)
    with fork:
        assert (fork.name, fork.record.lifetime) == ("copy", Lifetime.KEPT)
    expect_only(firkin, machine, fork)


def test_what_cannot_be_done_is_refused_before_anything_is_touched(firkin: Firkin) -> None:
    machine = firkin.run(SPEC)
    with pytest.raises(InvalidSpec, match="0 forks"):
        machine.fork(0)
    with pytest.raises(InvalidSpec, match="2 names for 3 forks"):
        machine.fork(3, names=["a", "b"])
    with pytest.raises(InvalidSpec, match="1 names for 2 forks"):
        machine.fork(2, names=["a", "a"])
    with pytest.raises(InvalidSpec, match="'A b' is not a host name"):
        machine.fork(names=["A b"])
    with pytest.raises(NameTaken, match="'box': the name is taken"):
        machine.fork(2, names=["a", "box"])
    expect_only(firkin, machine)
    machine.stop()
    with pytest.raises(UsageError, match="'box' is not running"):
        machine.fork()


def test_all_forks_are_there_or_none(firkin: Firkin) -> None:
    """The second half finds a snapshot that is damaged meanwhile."""
    machine = firkin.run(SPEC)
    snapshot = machine.snapshot("base")
    state = firkin.context.paths.snapshot_home(snapshot.id) / "state"

    def damage() -> None:
        wait_until(lambda: len(firkin.records()) > 3, timeout_s=30, interval_s=0.001)
        content = state.read_bytes()
        state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with ThreadPoolExecutor(1) as thread:
        damaging = thread.submit(damage)
        with pytest.raises(EngineError):
            snapshot.fork(20)
        damaging.result()
    snapshot.remove()
    expect_only(firkin, machine)


def test_a_fork_of_a_fork_of_a_fork(firkin: Firkin) -> None:
    line = [firkin.run(SPEC)]
    for generation in range(1, 4):
        say(line[-1], f"echo {generation} >> /root/line")
        line += line[-1].fork()
        say(line[-2], "echo too late >> /root/line")
    line[0].kill()
    line[1].remove(force=True)
    assert say(line[3], "cat /root/line") == "1\n2\n3"
    assert say(line[2], "cat /root/line") == "1\n2\n3\ntoo late"


def test_forks_need_neither_their_parent_nor_its_memory_file(firkin: Firkin) -> None:
    """Every page of a file that is read only after both are gone."""
    machine = firkin.run(SPEC)
    digest = say(machine, "dd if=/dev/urandom of=/root/noise bs=1M count=8 2>/dev/null; md5sum < /root/noise")
    with machine.snapshot("base") as snapshot:
        forks = snapshot.fork(3)
    assert list(firkin.context.paths.home.glob("snapshots/*")) == []
    machine.remove(force=True)
    assert [say(fork, "md5sum < /root/noise") for fork in forks] == [digest] * 3
    [again] = forks[0].fork()
    assert say(again, "md5sum < /root/noise") == digest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_database_that_is_being_written_is_whole_in_every_fork(firkin: Firkin) -> None:
    machine = firkin.run(MachineSpec(name="db", image="python", memory_mib=128))
    write = (
        "import sqlite3, itertools\n"
        "db = sqlite3.connect('/root/db')\n"
        "db.execute('create table t (n integer primary key, text text)')\n"
        "for n in itertools.count():\n"
        "    with db: db.execute('insert into t values (?, ?)', (n, 'x' * 500))\n"
    )
    check = (
        "import sqlite3\n"
        "db = sqlite3.connect('/root/db')\n"
        "print(db.execute('pragma integrity_check').fetchone()[0], *db.execute('select count(*), max(n) from t'))\n"
    )
    machine.start("python3", "-c", write, kept=True)
    assert wait_until(lambda: machine.exec("test", "-s", "/root/db").returncode == 0, timeout_s=30)
    forks = [fork for _ in range(3) for fork in machine.fork(2)]
    counts = []
    for fork in forks:
        for program in fork.kept():
            fork.exec("sh", "-c", f"kill -9 {program.pid}", check=True)
        told = fork.exec("python3", "-c", check, check=True, timeout_s=60).text
        assert told.startswith("ok ("), told
        count, last = map(int, told.strip()[4:-1].split(","))
        assert count == last + 1
        counts.append(count)
    assert counts[0] < counts[-1]


def test_forks_while_the_network_is_busy(firkin: Firkin) -> None:
    """The parent's transfer goes on, and each fork speaks for itself at once."""
    machine = firkin.run(SPEC)
    gateway = str(machine.network.gateway.ip)
    pings = machine.start("ping", "-i", "0.01", "-c", "400", "-W", "20", gateway)
    with removed(machine.fork(3)) as forks:
        for fork in forks:
            said = say(fork, f"ping -c 3 -W 5 {gateway}; ip -4 -o addr show scope global")
            assert " 0% packet loss" in said
            assert f" {fork.address}/" in said
        assert " 0% packet loss" in pings.result(timeout_s=120).text


# What tells a machine from its siblings, and how it is asked.
WHO = {
    "random numbers": "head -c 32 /dev/urandom | md5sum",
    "uuid": "cat /proc/sys/kernel/random/uuid",
    "machine-id": "cat /etc/machine-id 2>/dev/null || echo none",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "host name": "hostname",
    "its file": "cat /etc/hostname",
    "MAC": "cat /sys/class/net/eth0/address",
    "address": "ip -4 -o addr show eth0 | grep -o 'inet [^ ]*'",
    "layout of a program": "grep stack /proc/self/maps | cut -d' ' -f1",
}


def who(machine: Machine) -> list[str]:
    answers = say(machine, "\n".join(WHO.values())).splitlines()
    assert len(answers) == len(WHO), answers
    return answers


def clock_skew_s(machine: Machine) -> float:
    """By how much its clock is off for sure; a tick of it, 10 ms, is the most exact that it writes to a file."""
    before = time.time()
    machine.exec("touch", "/root/now", check=True)
    after = time.time()
    stamp = machine.fs.stat("/root/now").mtime
    return max(before - 0.01 - stamp, stamp - after, 0.0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_two_forks_are_alike_in_what_tells_machines_apart(firkin: Firkin) -> None:
    machine = firkin.run(SPEC)
    forks = machine.fork(50)
    with removed(forks), ThreadPoolExecutor(8) as threads:
        answers = [who(machine), *threads.map(who, forks)]
        for what, *told in zip(WHO, *answers, strict=True):
            assert len(set(told)) == 51, what
        for fork, told in zip(forks, answers[1:], strict=True):
            known = dict(zip(WHO, told, strict=True))
            assert (known["host name"], known["its file"]) == (fork.name, fork.name)
            assert known["MAC"] == fork.link.mac
            assert known["address"] == f"inet {fork.link.guest}"
        # One at a time: eight at once on two processors would measure each other.
        assert max(map(clock_skew_s, forks)) < 0.05


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_forks_of_debian_have_keys_of_their_own_that_ssh_knows(firkin: Firkin) -> None:
    machine = firkin.run(MachineSpec(name="deb", image="debian", memory_mib=256))
    login = [*machine.ssh_argv(["hostname"])]
    assert wait_until(lambda: subprocess.run(login, capture_output=True, check=False).returncode == 0, timeout_s=60)
    with removed(machine.fork(3)) as forks:
        keys = {say(each, "cat /etc/ssh/ssh_host_ed25519_key.pub").split()[1] for each in (machine, *forks)}
        assert len(keys) == 4
        for fork in forks:
            done = subprocess.run(fork.ssh_argv(["hostname"]), capture_output=True, text=True, check=False, timeout=60)
            assert (done.returncode, done.stdout) == (0, f"{fork.name}\n"), done.stderr
            assert say(fork, "hostnamectl hostname; systemctl is-system-running --wait || true").startswith(fork.name)
    done = subprocess.run(login, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "deb\n"), done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_forks_are_alive_at_once_and_each_is_right(firkin: Firkin) -> None:
    machine = firkin.run(SPEC)
    count = int(os.environ.get("FIRKIN_TEST_FORKS", "40"))
    forks = machine.fork(count)
    with ThreadPoolExecutor(16) as threads, removed(forks):
        numbered = list(enumerate(forks))
        list(threads.map(lambda pair: say(pair[1], f"echo {pair[0]} > /root/number"), numbered))
        answers = list(threads.map(lambda fork: say(fork, f"cat /root/number; {ADD_UP}"), forks))
        right = say(machine, ADD_UP)
        assert answers == [f"{number}\n{right}" for number, _ in numbered]
    expect_only(firkin, machine)


FORK_FOR_EVER = """
import sys
from firkin.manager.firkin import Firkin
from firkin.settings import load
with Firkin(load({"FIRKIN_HOME": sys.argv[1]})) as firkin:
    machine = firkin.machine("box")
    print("ready", flush=True)
    while True:
        for fork in machine.fork(2):
            fork.remove(force=True)
"""


def test_whoever_forks_may_be_killed_at_any_moment(firkin: Firkin, home: Path) -> None:
    machine = firkin.run(SPEC)
    for moment_s in (0.02, 0.05, 0.1, 0.2, 0.4, 0.7):
        with subprocess.Popen([sys.executable, "-c", FORK_FOR_EVER, str(home)], stdout=subprocess.PIPE) as forking:
            assert forking.stdout is not None
            assert forking.stdout.readline() == b"ready\n"
            time.sleep(moment_s)
            forking.kill()
        with opened(home):  # heals
            expect_only(firkin, machine)
        assert say(machine, "echo alive") == "alive"
        assert engines(home) == [machine.record.process]


def engines(home: Path) -> list[ProcessRef | None]:
    """Those that run from this home."""
    run = str(home / "run")
    found = []
    for pid in all_pids():
        try:
            folder = str(Path(f"/proc/{pid}/cwd").readlink())
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if folder.startswith(run) and b"--api-sock" in line:
            found.append(ProcessRef.of(pid))
    return found


def test_ctrl_c_takes_back_what_was_begun(firkin: Firkin, home: Path) -> None:
    machine = firkin.run(SPEC)
    argv = [sys.executable, "-m", "firkin.cli", "fork", "box", "-n", "20"]
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as forking:
        assert wait_until(lambda: len(firkin.records()) > 3, timeout_s=30)
        forking.send_signal(signal.SIGINT)
        out, _ = forking.communicate(timeout=60)
    assert (forking.returncode, out) == (130, b"")
    expect_only(firkin, machine)


def test_the_command_line_prints_the_names(firkin: Firkin, home: Path) -> None:
    machine = firkin.run(SPEC)
    environ = os.environ | {"FIRKIN_HOME": str(home)}

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "firkin.cli", *argv]
        return subprocess.run(line, capture_output=True, text=True, env=environ, check=False, timeout=120)

    done = run("fork", "box", "-n", "2", "--name-prefix", "try")
    assert (done.returncode, done.stdout) == (0, "try-1\ntry-2\n"), done.stderr
    assert run("fork", "try-1", "--name", "deep").stdout == "deep\n"
    assert run("exec", "deep", "hostname").returncode == 0
    assert run("fork", "nobody").stderr.startswith("error: machine or snapshot 'nobody': not found\n")
    assert run("fork", "box", "-n", "2", "--name", "x").returncode == 2
    machine.snapshot("base")
    assert run("fork", "base", "--name", "based", "--rm").stdout == "based\n"
    based = firkin.machine("based")
    assert based.record.lifetime is Lifetime.UNTIL_STOPPED
    based.stop()
    assert with_argument("--id", based.id) == []
    assert {record.name for record in firkin.records()} == {"box", "try-1", "try-2", "deep"}
