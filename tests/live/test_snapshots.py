"""Snapshots of real machines: they hardly notice, and nothing is left of what fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import borrowed_home

from firkin.errors import FirkinError, NoSpace, UsageError
from firkin.host.wait import wait_until
from firkin.manager.arrival import import_from
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.settings import load
from firkin.spec import MachineSpec
from firkin.store.machines import State

pytestmark = [pytest.mark.live, pytest.mark.guest]

SPEC = MachineSpec(image="busybox", memory_mib=128, name="box")


def folders(firkin: Firkin) -> set[str]:
    folder = firkin.context.paths.home / "snapshots"
    return {entry.name for entry in folder.iterdir()} if folder.exists() else set()


def expect_whole(firkin: Firkin) -> None:
    """Every snapshot that is listed is whole, and nothing else is there."""
    assert folders(firkin) == {record.id for record in firkin.snapshots()}
    assert [owner for owner in firkin.context.ledger.owners() if owner.startswith("snapshot:")] == []
    for record in firkin.snapshots():
        assert set(firkin.snapshot(record.id).verify()) <= {f"{record.name}: no digests were taken"}


def write(machine: Machine, name: str) -> None:
    machine.exec("sh", "-c", f"echo {name} > /root/{name}", check=True)


def files(machine: Machine) -> list[str]:
    return machine.exec("ls", "/root", check=True).text.split()


def cli(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build"}
    program = [sys.executable, "-m", "firkin.cli", *words]
    return subprocess.run(program, env=environ, capture_output=True, text=True, timeout=60)


def test_a_running_machine_goes_on_and_its_snapshot_holds_what_was(firkin: Firkin) -> None:
    with firkin.run(SPEC) as box:
        write(box, "before")
        snapshot = box.snapshot("ready")
        write(box, "after")
        assert box.record.state is State.RUNNING
        assert snapshot.verify() == []
        assert snapshot.record.kernel_digest == firkin.kernel("build").digest
        assert snapshot.record.image_digest == firkin.image("busybox").digest
        assert snapshot.sizes.apparent > 128 << 20 > snapshot.sizes.disk
        (fork,) = snapshot.fork()
        with fork:
            assert files(fork) == ["before"]
        assert files(box) == ["after", "before"]
        expect_whole(firkin)
        snapshot.remove()
        snapshot.remove()
    assert folders(firkin) == set()


def test_a_paused_machine_stays_paused(firkin: Firkin) -> None:
    with firkin.run(SPEC) as box:
        box.pause()
        snapshot = box.snapshot()
        assert box.record.state is State.PAUSED
        (fork,) = snapshot.fork()
        with fork:
            assert fork.exec("true").returncode == 0
        box.resume()
        assert box.exec("true").returncode == 0
        snapshot.remove()


def test_differences_hold_what_was_written_and_a_chain_loads_as_one(firkin: Firkin, tmp_path: Path) -> None:
    with firkin.run(SPEC) as box:
        with pytest.raises(UsageError, match="booted, not forked"):
            box.snapshot(diff=True)
        write(box, "one")
        full = box.snapshot("one")
    with full.fork()[0] as fork:
        write(fork, "two")
        second = fork.snapshot("two", diff=True)
    with second.fork()[0] as fork:
        write(fork, "three")
        third = fork.snapshot("three", diff=True)
    assert [snapshot.record.parent for snapshot in (full, second, third)] == [None, full.id, second.id]
    assert third.sizes.disk < full.sizes.disk / 3
    with pytest.raises(UsageError, match="two") as refusal:
        full.remove()
    assert refusal.value.hint == "firkin snapshot rm two"
    with third.fork()[0] as fork:
        assert files(fork) == ["one", "three", "two"]
    with second.fork()[0] as fork:
        assert files(fork) == ["one", "two"]
    expect_whole(firkin)

    third.export(tmp_path / "three.tar.zst")
    third.export(tmp_path / "merged.tar", merge=True)
    for snapshot in (third, second, full):
        snapshot.remove()
    assert folders(firkin) == set()
    done = import_from(firkin.context, tmp_path / "three.tar.zst")
    merged = import_from(firkin.context, tmp_path / "merged.tar", name="merged")
    assert done.notes == merged.notes == ()
    for record in (done.record, merged.record):
        with firkin.snapshot(record.name).fork()[0] as fork:
            assert files(fork) == ["one", "three", "two"]
    expect_whole(firkin)


def test_a_snapshot_goes_to_another_home_and_is_forked_there(firkin: Firkin, tmp_path: Path) -> None:
    with firkin.run(SPEC) as box:
        write(box, "here")
        box.snapshot("ready").export(tmp_path / "ready.tar.zst")
    firkin.snapshot("ready").remove()
    settings = load({"FIRKIN_HOME": str(borrowed_home(tmp_path / "other"))})
    with Firkin(settings) as other:
        done = import_from(other.context, tmp_path / "ready.tar.zst")
        assert done.notes == ()
        with other.snapshot("ready").fork()[0] as fork:
            assert files(fork) == ["here"]
            again = fork.snapshot("again", diff=True)
        with again.fork()[0] as fork:
            assert files(fork) == ["here"]


def test_forks_go_on_when_their_snapshot_is_removed(firkin: Firkin) -> None:
    with firkin.run(SPEC) as box:
        snapshot = box.snapshot()
    with snapshot.fork()[0] as fork:
        snapshot.remove()
        assert fork.exec("sh", "-c", "md5sum /bin/* | wc -l").returncode == 0
        with pytest.raises(UsageError, match="is gone"):
            fork.snapshot(diff=True)
        again = fork.snapshot()
    with again.fork()[0] as fork:
        assert fork.exec("true").returncode == 0
    again.remove()


def test_the_pause_is_short(firkin: Firkin) -> None:
    """As seen from outside: how long a program in the guest says nothing. The bench measures it in peace."""
    with firkin.run(SPEC) as box, box.start("sh", "-c", "while :; do echo; usleep 2000; done") as ticker:
        times: list[float] = []

        def listen() -> None:
            times.extend(time.perf_counter() for _ in ticker)

        listener = threading.Thread(target=listen)
        listener.start()
        time.sleep(0.2)
        snapshot = box.snapshot()
        time.sleep(0.2)
        ticker.kill()
        listener.join()
        snapshot.remove()
    assert max(later - earlier for earlier, later in pairwise(times)) < 1


@pytest.mark.slow
def test_kill_9_leaves_no_snapshot_or_a_whole_one_and_the_machine_goes_on(
    open_firkin: Callable[[], Firkin], home: Path
) -> None:
    firkin = open_firkin()
    box = firkin.run(SPEC)
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    ends = []
    for delay_s in (0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.3):
        before = folders(firkin)
        child = subprocess.Popen([sys.executable, "-m", "firkin.cli", "snapshot", "create", "box"], env=environ)
        assert wait_until(lambda: folders(firkin) != before, timeout_s=20, interval_s=0.0005)  # noqa: B023 - called at once
        time.sleep(delay_s)
        child.kill()
        child.wait()
        healed = open_firkin()
        expect_whole(healed)
        assert not healed.context.journal.holds(box.id, "frozen")
        assert box.exec("true", timeout_s=10).returncode == 0
        ends.append(len(folders(healed)) - len(before))
    assert set(ends) == {0, 1}  # some died too early, some late enough


def test_an_engine_that_dies_meanwhile_is_told_and_leaves_nothing_half_made(firkin: Firkin) -> None:
    box = firkin.run(SPEC)
    failed: list[BaseException] = []

    def take() -> None:
        try:
            box.snapshot()
        except FirkinError as error:
            failed.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    assert wait_until(lambda: folders(firkin) != set(), timeout_s=20, interval_s=0.0005)
    os.kill(box.process().pid, signal.SIGKILL)
    thread.join()
    assert len(failed) + len(firkin.snapshots()) == 1
    expect_whole(firkin)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_and_the_machine_goes_on(firkin: Firkin, tmp_path: Path) -> None:
    with firkin.run(SPEC) as box, small_disk(firkin.context.paths.home / "snapshots", "8m"):
        with pytest.raises(NoSpace, match="disk full") as refusal:
            box.snapshot()
        assert refusal.value.hint
        assert firkin.snapshots() == []
        assert folders(firkin) == set()
        assert set(firkin.context.ledger.owners()) == {"network:default", box.id}
        assert box.record.state is State.RUNNING
        assert box.exec("true", timeout_s=10).returncode == 0


def test_an_export_onto_a_full_disk_leaves_nothing(firkin: Firkin, tmp_path: Path) -> None:
    with firkin.run(SPEC) as box:
        snapshot = box.snapshot()
    with small_disk(tmp_path / "small", "2m"):
        for name in ("out.tar", "out.tar.zst"):
            with pytest.raises(NoSpace):
                snapshot.export(tmp_path / "small" / name)
        assert list((tmp_path / "small").iterdir()) == []
    snapshot.remove()


def test_two_at_once_wait_for_each_other(firkin: Firkin) -> None:
    with firkin.run(SPEC) as box:
        threads = [threading.Thread(target=box.snapshot, args=(f"s{number}",)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {record.name for record in firkin.snapshots()} == {"s0", "s1", "s2"}
        expect_whole(firkin)
        assert box.exec("true").returncode == 0


def test_the_command_line(open_firkin: Callable[[], Firkin], home: Path, tmp_path: Path) -> None:
    with open_firkin().run(SPEC):
        made = cli(home, "snapshot", "create", "box", "--name", "ready")
        assert made.stdout.startswith("ready ")
        taken = cli(home, "snapshot", "create", "box", "--name", "ready")
        assert (taken.returncode, "taken" in taken.stderr, "hint:" in taken.stderr) == (2, True, True)
        refused = cli(home, "snapshot", "create", "box", "--diff")
        assert (refused.returncode, "booted, not forked" in refused.stderr) == (2, True)
    assert cli(home, "snapshot", "ls", "-q").stdout == "ready\n"
    assert cli(home, "snapshot", "ls").stdout.splitlines()[1].split()[0] == "ready"
    (row,) = json.loads(cli(home, "snapshot", "ls", "--json").stdout)
    assert row == json.loads(cli(home, "snapshot", "inspect", "ready").stdout)
    assert 0 < row["disk_bytes"] < 128 << 20 < row["apparent_bytes"]
    assert cli(home, "snapshot", "verify", "ready").stdout == "ready\n"
    assert cli(home, "snapshot", "export", "ready", str(tmp_path / "ready.tar")).returncode == 0
    gone = cli(home, "snapshot", "rm", "ready", "nosuch")
    assert (gone.stdout, gone.returncode) == ("ready\n", 2)
    assert "snapshot 'nosuch': not found" in gone.stderr
    back = cli(home, "snapshot", "import", str(tmp_path / "ready.tar"), "--name", "back")
    assert (back.stdout, back.stderr) == ("back\n", "")
    with Path(row["files"]["memory"]).open("r+b") as memory:
        memory.write(b"damage")
    broken = cli(home, "snapshot", "verify", "back")
    assert (broken.returncode, "memory was altered" in broken.stderr) == (125, True)
