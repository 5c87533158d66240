"""Many threads share one open store."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from firkin.errors import HostError
from firkin.store.db import Database
from firkin.store.journal import Journal


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(tmp_path / "firkin.db")


def test_threads_write_at_once_and_nothing_is_lost(db: Database) -> None:
    journal = Journal(db)

    def write(number: int) -> None:
        for _ in range(10):
            journal.write(f"owner-{number}", "change")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    assert sorted(journal.owners()) == [f"owner-{number}" for number in range(8)]
    assert all(len(journal.newest_first(owner)) == 10 for owner in journal.owners())


def test_what_a_transaction_holds_back_no_other_thread_sees_or_joins(db: Database) -> None:
    journal = Journal(db)

    def owners() -> list[str]:
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(journal.owners).result()

    with db.transaction():
        journal.write("owner", "change")
        assert journal.owners() == ["owner"]
        assert owners() == []
    assert owners() == ["owner"]


def test_a_connection_goes_with_its_thread(db: Database) -> None:
    journal = Journal(db)
    before = open_files()
    for _ in range(20):
        thread = threading.Thread(target=journal.owners)
        thread.start()
        thread.join()
    gc.collect()
    # A thread that was joined may still clear up while the next one opens the file; SQLite keeps such a descriptor for
    # later, since closing it would give up the locks of others. So a few more, but none for each thread.
    assert open_files() < before + 10


def test_closing_closes_for_all_threads(db: Database) -> None:
    journal = Journal(db)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(journal.owners).result()
        db.close()
        db.close()
        for use in (journal.owners, lambda: threads.submit(journal.owners).result()):
            with pytest.raises(HostError, match="closed") as refusal:
                use()
            assert refusal.value.hint
