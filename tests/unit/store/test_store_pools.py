"""Pools in the store: names, members, and a claim that only one can win."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from firkin.errors import NameTaken
from firkin.spec import MachineSpec
from firkin.store.db import Database
from firkin.store.machines import Lifetime, MachineRecord, Machines, State
from firkin.store.pools import PoolRecord, Pools
from firkin.store.snapshots import SnapshotRecord, Snapshots


@pytest.fixture
def db(tmp_path: Path) -> Database:
    db = Database(tmp_path / "firkin.db")
    Snapshots(db).add(
        SnapshotRecord(
            id="5a", name="snap", machine="web", spec=MachineSpec(), engine="firkin-vmm", kernel_digest="1",
            image_digest="2", mac="06:00:c0:a8:05:03",
        )
    )  # fmt: skip
    return db


def pool(name: str = "web", pool_id: str = "aa") -> PoolRecord:
    return PoolRecord(id=pool_id, name=name, size=2, snapshot="5a", network="default")


def started(db: Database, machine_id: str) -> Machines:
    machines = Machines(db)
    machines.add(
        MachineRecord(
            id=machine_id, name=f"web-{machine_id}", state=State.RUNNING, spec=MachineSpec(),
            lifetime=Lifetime.SESSION, engine="firkin-vmm",
        )
    )  # fmt: skip
    return machines


def test_a_pool_comes_back_as_it_was_stored(db: Database) -> None:
    Pools(db).add(pool())
    assert Pools(db).get("aa") == Pools(db).named("web") == Pools(db).all()[0]
    Pools(db).remove("aa")
    assert Pools(db).named("web") is None


def test_a_second_pool_of_the_name_is_refused_with_a_hint(db: Database) -> None:
    Pools(db).add(pool())
    with pytest.raises(NameTaken) as refusal:
        Pools(db).add(pool(pool_id="bb"))
    assert "pool rm web" in refusal.value.hint


def test_a_machine_becomes_a_member_and_outlives_its_maker(db: Database) -> None:
    Pools(db).add(pool())
    machines = started(db, "01")
    assert machines.enter("01", "aa")
    (member,) = machines.members("aa")
    assert (member.state, member.lifetime) == (State.READY, Lifetime.UNTIL_STOPPED)


def test_a_pool_that_is_gone_takes_no_members(db: Database) -> None:
    machines = started(db, "01")
    assert not machines.enter("01", "aa")
    record = machines.get("01")
    assert record is not None
    assert (record.state, record.lifetime, record.pool) == (State.RUNNING, Lifetime.SESSION, None)


def test_of_many_claims_at_once_one_wins(db: Database) -> None:
    Pools(db).add(pool())
    machines = started(db, "01")
    machines.enter("01", "aa")
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(machines.claim("01", Lifetime.KEPT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    record = machines.get("01")
    assert record is not None
    assert (record.state, record.lifetime, record.pool) == (State.STARTING, Lifetime.KEPT, None)
