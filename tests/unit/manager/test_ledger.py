"""Changes are written before they are done, and taken back newest first from what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.manager.changes import Folder, Ledger
from firkin.store.db import Database
from firkin.store.journal import Journal


class Unwilling(Folder, frozen=True, tag="folder"):
    """A folder whose making fails half-way: it exists, and the maker died."""

    def do(self) -> None:
        super().do()
        raise OSError("died")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(Database(tmp_path / "firkin.db"))


def test_undo_all_takes_everything_back(journal: Journal, tmp_path: Path) -> None:
    ledger = Ledger(journal)
    outer, inner = tmp_path / "a", tmp_path / "a" / "b"
    ledger.do("m", Folder(str(outer)))
    ledger.do("m", Folder(str(inner)))
    assert inner.is_dir()
    ledger.undo_all("m")
    assert not outer.exists()
    assert ledger.owners() == []


def test_a_change_that_failed_half_way_is_known(journal: Journal, tmp_path: Path) -> None:
    ledger = Ledger(journal)
    with pytest.raises(OSError, match="died"):
        ledger.do("m", Unwilling(str(tmp_path / "half")))
    Ledger(journal).undo_all("m")
    assert not (tmp_path / "half").exists()


def test_owners_do_not_touch_each_other(journal: Journal, tmp_path: Path) -> None:
    ledger = Ledger(journal)
    for owner in ("m", "n"):
        ledger.do(owner, Folder(str(tmp_path / owner)))
    ledger.undo_all("m")
    assert (tmp_path / "n").is_dir()
    assert not ledger.holds("m")
    assert ledger.holds("n")
