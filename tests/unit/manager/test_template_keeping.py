"""Which templates go when room is short, and which never do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from firkin.errors import UsageError
from firkin.manager import snapshots, template_keeping
from firkin.manager.context import Context
from firkin.settings import load
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime, MachineRecord, State
from firkin.store.pools import PoolRecord
from firkin.store.snapshots import SnapshotRecord

KERNEL, IMAGE = "aa" * 32, "bb" * 32
MIB = 2**20


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A home with room for 3 MiB of templates."""
    with closing(Context(load({"FIRKIN_HOME": str(tmp_path), "FIRKIN_TEMPLATES_MIB": "3"}))) as context:
        context.paths.blobs.mkdir(parents=True)
        for digest in (KERNEL, IMAGE):
            context.blobs.path(digest).touch()
        yield context


def keep(context: Context, name: str, *, image: str = IMAGE, template: bool = True, parent: str | None = None) -> None:
    """A template of one MiB whose id is its name, used later than those before."""
    folder = context.paths.snapshot_home(name)
    folder.mkdir(parents=True)
    (folder / "memory").write_bytes(bytes(MIB - 4096))
    (folder / "state").write_bytes(bytes(4096))
    context.snapshots.add(
        SnapshotRecord(
            id=name, name=name, machine="web", spec=MachineSpec(), engine="firkin-vmm", kernel_digest=KERNEL,
            image_digest=image, mac="06:00:c0:a8:05:03", template=name if template else None, parent=parent,
        )
    )  # fmt: skip


def left(context: Context) -> list[str]:
    names = sorted(record.id for record in context.snapshots.all())
    assert sorted(path.name for path in (context.paths.home / "snapshots").iterdir()) == names
    return names


def test_those_used_longest_ago_go_until_the_rest_fits(context: Context) -> None:
    for name in ("a", "b", "c", "d", "e"):
        keep(context, name)
    context.snapshots.touch("a")
    template_keeping.evict(context)
    assert left(context) == ["a", "d", "e"]


def test_nothing_goes_while_there_is_room(context: Context) -> None:
    for name in ("a", "b", "c"):
        keep(context, name)
    template_keeping.evict(context)
    assert left(context) == ["a", "b", "c"]


def test_the_one_just_made_stays_however_large(context: Context) -> None:
    for name in ("a", "b", "c", "d"):
        keep(context, name)
    template_keeping.evict(context, keep="a")
    assert left(context) == ["a", "c", "d"]


def test_a_persons_own_snapshots_neither_count_nor_go(context: Context) -> None:
    for name in ("a", "b", "c", "d"):
        keep(context, name, template=False)
    keep(context, "e")
    template_keeping.evict(context)
    assert left(context) == ["a", "b", "c", "d", "e"]


def test_what_machines_differences_and_pools_come_from_stays(context: Context) -> None:
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        keep(context, name)
    context.machines.add(
        MachineRecord(
            id="01", name="web", state=State.RUNNING, spec=MachineSpec(), lifetime=Lifetime.KEPT, engine="firkin-vmm",
            snapshot="a",
        )
    )  # fmt: skip
    keep(context, "own", template=False, parent="b")
    context.pools.add(PoolRecord(id="01", name="web", size=1, snapshot="c", network="default"))
    template_keeping.evict(context)
    assert left(context) == ["a", "b", "c", "own"]


def test_one_whose_image_is_gone_goes_first(context: Context) -> None:
    keep(context, "a")
    keep(context, "b", image="cc" * 32)
    template_keeping.evict(context)
    assert left(context) == ["a"]


def test_a_snapshot_that_a_pool_is_made_of_cannot_be_removed(context: Context) -> None:
    keep(context, "a")
    context.pools.add(PoolRecord(id="01", name="web", size=1, snapshot="a", network="default"))
    record = context.snapshots.get("a")
    assert record is not None
    with pytest.raises(UsageError) as refusal:
        snapshots.remove(context, record)
    assert "pool rm web" in refusal.value.hint
    template_keeping.drop(context, record, UsageError("broken"))
    assert left(context) == ["a"]
