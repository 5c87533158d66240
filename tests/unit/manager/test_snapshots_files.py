"""Snapshots as files and rows, without machines: chains, merging, checks, and what died half-way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from snapshot_world import MEMORY_MIB, pages, put

from firkin.errors import HostError, InvalidSpec, NameTaken, NotFound, UsageError
from firkin.host.lock import locked
from firkin.manager import reconcile, snapshots
from firkin.manager.changes import Folder
from firkin.manager.context import Context
from firkin.manager.snapshot import find
from firkin.manager.snapshot_files import PAGE_SIZE, Files, check_pages, sizes
from firkin.manager.snapshot_record import check_name
from firkin.settings import load


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    context = Context(load({"FIRKIN_HOME": str(tmp_path / "home")}))
    yield context
    context.close()


def test_a_chain_is_merged_once_and_later_links_start_from_what_is_merged(context: Context) -> None:
    put(context, 1, {0: b"a", 1: b"a", 2: b"a", 7: b"a"})
    second = put(context, 2, {1: b"b", 2: b"b", 4: b"b"}, parent=1)
    third = put(context, 3, {2: b"c", 7: b"\0", 8191: b"c"}, parent=2)

    whole = snapshots.materialize(context, second)
    assert whole.state == Files.of(context.paths, second.id).state
    assert pages(whole.memory) == {0: b"a", 1: b"b", 2: b"b", 4: b"b", 7: b"a"}
    inode = whole.memory.stat().st_ino
    assert pages(snapshots.materialize(context, third).memory) == {0: b"a", 1: b"b", 2: b"c", 4: b"b", 8191: b"c"}
    assert snapshots.materialize(context, second).memory.stat().st_ino == inode
    assert context.ledger.owners() == []
    assert sorted(path.name for path in whole.memory.parent.iterdir()) == ["memory", "state", "whole"]


def test_merging_changes_none_of_the_links(context: Context) -> None:
    put(context, 1, {0: b"a"})
    second = put(context, 2, {0: b"b"}, parent=1)
    snapshots.materialize(context, second)
    assert snapshots.verify(context, second) == []


def test_a_full_snapshot_is_loaded_from_its_own_files(context: Context) -> None:
    record = put(context, 1, {0: b"a"})
    assert snapshots.materialize(context, record) == Files.of(context.paths, record.id)


def test_sizes_count_what_is_stored_and_what_it_stands_for(context: Context) -> None:
    record = put(context, 1, {0: b"a", 100: b"b"})
    found = sizes(Files.of(context.paths, record.id))
    assert found.apparent == (MEMORY_MIB << 20) + len(b"state 1")
    assert 3 * PAGE_SIZE <= found.disk < 64 * PAGE_SIZE


def test_a_parent_stays_as_long_as_its_differences_do(context: Context) -> None:
    first, second = put(context, 1, {0: b"a"}), put(context, 2, {1: b"b"}, parent=1)
    with pytest.raises(UsageError, match="s2") as refusal:
        snapshots.remove(context, first)
    assert refusal.value.hint == "firkin snapshot rm s2"
    assert snapshots.verify(context, second) == []
    snapshots.remove(context, second)
    snapshots.remove(context, first)
    assert context.snapshots.all() == []
    assert list((context.paths.home / "snapshots").iterdir()) == []
    assert context.ledger.owners() == []


def test_verify_tells_what_was_altered_anywhere_in_the_chain(context: Context) -> None:
    first, second = put(context, 1, {0: b"a"}), put(context, 2, {1: b"b"}, parent=1)
    with Files.of(context.paths, first.id).memory.open("r+b") as memory:
        memory.write(b"x")
    Files.of(context.paths, second.id).state.unlink()
    assert snapshots.verify(context, second) == ["s1: memory was altered", "s2: state is missing"]


def test_a_difference_whose_parent_went_is_refused_by_the_store(context: Context) -> None:
    with pytest.raises(NotFound):
        put(context, 2, {1: b"b"}, parent=1)


def test_names(context: Context) -> None:
    put(context, 1, {})
    assert find(context, "s1").id == f"{1:012x}"
    assert find(context, f"{1:012x}").name == "s1"
    with pytest.raises(NameTaken):
        check_name(context, "s1")
    for name in ("", "S", "-a", "a/b", "a" * 64, "a\n"):
        with pytest.raises(InvalidSpec):
            check_name(context, name)
    put(context, 2, {})
    with pytest.raises(UsageError, match="s1, s2"):
        find(context, "0000")
    with pytest.raises(NotFound):
        find(context, "nosuch")


def test_what_a_killed_maker_left_is_swept_once_nobody_holds_its_lock(context: Context) -> None:
    folder = Files.of(context.paths, "a" * 12).folder
    context.ledger.do(snapshots.owner_of("a" * 12), Folder(str(folder)))
    with locked(context.snapshot_lock("a" * 12)):
        reconcile.reconcile(context)
        assert folder.is_dir()
    reconcile.reconcile(context)
    assert not folder.exists()
    assert context.ledger.owners() == []


def test_what_fails_half_way_is_undone_at_once(context: Context) -> None:
    folder = Files.of(context.paths, "a" * 12).folder

    def fail() -> None:
        with snapshots.making(context, "a" * 12):
            context.ledger.do(snapshots.owner_of("a" * 12), Folder(str(folder)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not folder.exists()
    assert context.ledger.owners() == []


def test_large_blocks_cannot_hold_differences(tmp_path: Path) -> None:
    check_pages(tmp_path)
    with pytest.raises(HostError, match="blocks of") as refusal:
        check_pages(Path("/sys"), page_size=1024)
    assert "--diff" in refusal.value.hint


def test_an_image_that_nobody_names_any_more_goes_with_its_last_snapshot(context: Context) -> None:
    first, second = put(context, 1, {0: b"a"}), put(context, 2, {0: b"b"})
    blob = context.blobs.path(first.image_digest)
    blob.parent.mkdir(parents=True)
    blob.touch()
    assert context.snapshots.image_digests() == {first.image_digest}
    snapshots.remove(context, first)
    assert blob.exists()
    snapshots.remove(context, second)
    assert not blob.exists()
