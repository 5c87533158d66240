"""Twins: who loads a snapshot forks the QEMU that was saved where it sleeps, and misses nothing where it does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from firkin.errors import FirkinError
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.manager.snapshot import Snapshot
from firkin.spec import MachineSpec

SPEC = MachineSpec(image="busybox", kernel="build", memory_mib=128)


def say(machine: Machine, command: str) -> str:
    return machine.exec("sh", "-c", command, check=True, timeout_s=30).text.strip()


def called(name: str) -> list[int]:
    """Processes of that name."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == name:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def asleep(firkin: Firkin) -> list[int]:
    """Twins of machines of this home: they have such a machine's folder as their own."""
    found = []
    for pid in called("qemu-asleep"):
        try:
            folder = Path(f"/proc/{pid}/cwd").readlink()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if folder.is_relative_to(firkin.context.paths.run):
            found.append(pid)
    return found


def copies(machine: Machine) -> list[int]:
    """Its QEMU, if that was forked from a sleeping one."""
    return called(f"qemu-of-{machine.process().pid}")


def is_copy(machine: Machine) -> bool:
    return bool(copies(machine))


@pytest.fixture
def machine(firkin: Firkin) -> Iterator[Machine]:
    """One that runs beside a zygote which is up."""
    firkin.run(SPEC).remove(force=True)  # leaves the zygote
    zygote = firkin.context.zygote
    assert zygote is not None
    assert wait_until(zygote.socket.exists, timeout_s=20)
    with firkin.run(SPEC) as running:
        say(running, "true")
        yield running


@pytest.fixture
def snapshot(machine: Machine) -> Iterator[Snapshot]:
    with machine.snapshot("twin") as saved:
        yield saved


def test_a_fork_is_a_copy_of_the_qemu_that_was_saved(firkin: Firkin, machine: Machine, snapshot: Snapshot) -> None:
    assert len(asleep(firkin)) == 1
    say(machine, "echo later > /root/later")
    [one], [other] = snapshot.fork(), snapshot.fork()
    for fork in (one, other):
        assert is_copy(fork)
        assert say(fork, "ls /root") == ""  # of the instant of the snapshot
    say(one, "echo mine > /root/mine")
    assert say(other, "ls /root") == ""
    assert say(machine, "ls /root") == "later"


def test_a_copy_is_forked_in_its_turn(snapshot: Snapshot) -> None:
    [child] = snapshot.fork()
    say(child, "echo child > /root/who")
    [grandchild] = child.fork()
    assert is_copy(grandchild)
    say(grandchild, "echo grandchild >> /root/who")
    [last] = grandchild.fork()
    assert is_copy(last)
    assert say(last, "cat /root/who") == "child\ngrandchild"
    assert say(child, "cat /root/who") == "child"


def test_without_its_twin_a_snapshot_is_as_good(firkin: Firkin, snapshot: Snapshot) -> None:
    [first] = snapshot.fork()
    for pid in asleep(firkin):
        os.kill(pid, signal.SIGKILL)
    [second] = snapshot.fork()
    assert (is_copy(first), is_copy(second)) == (True, False)
    assert say(first, "echo alive") == say(second, "echo alive") == "alive"


def test_a_twin_is_gone_with_its_snapshot(firkin: Firkin, snapshot: Snapshot) -> None:
    [fork] = snapshot.fork()
    assert asleep(firkin)
    snapshot.remove()
    assert wait_until(lambda: not asleep(firkin), timeout_s=10)
    assert say(fork, "echo alive") == "alive"


def test_a_twin_is_gone_with_the_zygote(firkin: Firkin, snapshot: Snapshot) -> None:
    assert asleep(firkin)
    assert firkin.context.zygote is not None
    firkin.context.zygote.end()
    assert wait_until(lambda: not asleep(firkin), timeout_s=10)
    [fork] = snapshot.fork()
    assert not is_copy(fork)


def test_the_end_of_a_copy_is_told_as_of_any_qemu(snapshot: Snapshot) -> None:
    one, other = snapshot.fork(2)
    engine, [pid] = other.process(), copies(other)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not engine.alive(), timeout_s=10)
    assert "killed by signal 9" in other.engine_log.read_text()
    with one.engine_log.open() as log:  # the machine goes when it stops
        one.stop()
        assert "exiting successfully" in log.read()


def test_a_copy_ends_with_its_engine(snapshot: Snapshot) -> None:
    [fork] = snapshot.fork()
    engine = fork.process().pid
    assert is_copy(fork)
    os.kill(engine, signal.SIGKILL)
    assert wait_until(lambda: not called(f"qemu-of-{engine}"), timeout_s=5)


def test_nothing_of_the_original_reaches_a_copy(machine: Machine, snapshot: Snapshot) -> None:
    """Their rings, doorbells and channels are their own: both work at once, and the end of one is not the other's."""
    [fork] = snapshot.fork()
    noise = "for n in 1 2 3; do dd if=/dev/urandom bs=1M count=4 2>/dev/null | md5sum; done"
    with ThreadPoolExecutor(2) as threads:
        sums = [word for text in threads.map(lambda each: say(each, noise), (machine, fork)) for word in text.split()]
    assert len(set(sums) - {"-"}) == 6
    machine.remove(force=True)
    assert say(fork, "echo alive") == "alive"


def test_programs_of_a_connection_end_in_a_copy_too(machine: Machine) -> None:
    with machine.start("sleep", "1000"):
        say(machine, "sleep 2000 > /dev/null 2>&1 &")
        [fork] = machine.fork()
        assert is_copy(fork)
        deadline = time.monotonic() + 10
        while "sleep 1000" in (shown := say(fork, "ps -o args")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "sleep 1000" not in shown
        assert "sleep 2000" in shown
        assert "sleep 1000" in say(machine, "ps -o args")


def test_a_machine_that_cannot_be_saved_has_no_twin(firkin: Firkin, machine: Machine) -> None:
    before = asleep(firkin)
    with pytest.raises(FirkinError):
        machine.snapshot("-")
    assert asleep(firkin) == before
