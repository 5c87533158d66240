"""The store remembers, refuses and survives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firkin.errors import HostError, NameTaken
from firkin.host.lock import try_lock
from firkin.paths import Paths
from firkin.spec import MachineSpec
from firkin.store.blobs import Blobs
from firkin.store.db import Database
from firkin.store.images import Image, ImageConfig, Images
from firkin.store.journal import Journal
from firkin.store.leases import Leases
from firkin.store.machines import Lifetime, MachineRecord, Machines, State


def record(name: str, machine_id: str) -> MachineRecord:
    spec = MachineSpec(image="busybox", name=name, env=("A=1",))
    return MachineRecord(
        id=machine_id, name=name, state=State.STARTING, spec=spec, lifetime=Lifetime.KEPT, engine="firkin-vmm"
    )


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(tmp_path / "firkin.db")


def test_a_machine_comes_back_as_it_was_stored(db: Database) -> None:
    machines = Machines(db)
    machines.add(record("web", "aa11"))
    found = machines.get("aa11")
    assert found is not None
    assert (found.name, found.spec, found.state) == ("web", record("web", "aa11").spec, State.STARTING)


def test_a_second_machine_of_the_name_is_refused_with_a_hint(db: Database) -> None:
    machines = Machines(db)
    machines.add(record("web", "aa11"))
    with pytest.raises(NameTaken) as refusal:
        machines.add(record("web", "bb22"))
    assert "rm --force web" in refusal.value.hint


def test_a_name_wins_over_an_id_prefix(db: Database) -> None:
    machines = Machines(db)
    machines.add(record("aa", "bb22"))
    machines.add(record("web", "aa11"))
    assert [found.id for found in machines.find("aa")] == ["bb22"]
    assert [found.id for found in machines.find("aa1")] == ["aa11"]


def test_a_prefix_is_taken_literally(db: Database) -> None:
    machines = Machines(db)
    machines.add(record("web", "aa11"))
    assert machines.find("%") == []
    assert machines.find("__") == []


def test_leases_fill_gaps_and_end_with_their_machine(db: Database) -> None:
    machines, leases = Machines(db), Leases(db)
    for machine_id in ("a", "b", "c"):
        machines.add(record(f"m-{machine_id}", machine_id))
        leases.take("default", machine_id)
    machines.remove("b")
    assert leases.count("default") == 2
    machines.add(record("m-d", "d"))
    assert leases.take("default", "d") == 1
    assert leases.slot("c") == 2


def test_the_journal_gives_changes_back_newest_first(db: Database) -> None:
    journal = Journal(db)
    numbers = [journal.write("m", value) for value in ("one", "two", "three")]
    journal.strike(numbers[1])
    assert [entry.value for entry in journal.newest_first("m")] == ["three", "one"]


def test_an_image_keeps_its_config(db: Database) -> None:
    images = Images(db)
    image = Image(
        name="x", tag="1", digest="d", filesystem="squashfs", config=ImageConfig(init="/sbin/init"), size_bytes=3
    )
    images.put(image)
    assert images.get("x", "1") == image
    assert images.get("x") is None


def test_a_store_of_a_newer_firkin_is_left_alone(tmp_path: Path) -> None:
    db = Database(tmp_path / "firkin.db")
    db.connection.execute("PRAGMA user_version=999")
    db.close()
    with pytest.raises(HostError, match="newer firkin"):
        Database(tmp_path / "firkin.db")


def test_a_transaction_is_whole_or_nothing(db: Database) -> None:
    def write_and_fail() -> None:
        with db.transaction() as connection:
            connection.execute("INSERT INTO changes (owner, value) VALUES ('a', 'b')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert Journal(db).owners() == []


def test_adopting_the_same_content_twice_keeps_one_blob(tmp_path: Path) -> None:
    blobs = Blobs(Paths(tmp_path, tmp_path / "run"))
    with blobs.workspace("test") as folder:
        (folder / "a").write_text("same")
        (folder / "b").write_text("same")
        first, second = blobs.adopt(folder / "a"), blobs.adopt(folder / "b")
    assert first == second
    assert blobs.path(first).read_text() == "same"
    assert list(tmp_path.glob("work/*")) == []


def test_sweep_removes_the_workspaces_of_the_dead_only(tmp_path: Path) -> None:
    blobs = Blobs(Paths(tmp_path, tmp_path / "run"))
    for name in ("dead", "alive"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / ".lock").touch()
    holder = try_lock(tmp_path / "work" / "alive" / ".lock")
    assert holder is not None
    assert [folder.name for folder in blobs.sweep()] == ["dead"]
    os.close(holder)
