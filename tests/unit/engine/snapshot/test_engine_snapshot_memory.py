from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.snapshot.ledger import Ledger
from firkin.engine.snapshot.memory import ForkedMemory, OwnMemory
from firkin.engine.snapshot.pagemap import own_pages
from firkin.host.sparse import Extent, copy, data_extents

PAGE = 4096
SIZE = 64 * PAGE
FILE_PAGE, OWN_PAGE, SWAPPED_PAGE = 1 << 63 | 1 << 61, 1 << 63 | 1 << 56, 1 << 62


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def fresh(folder: Path) -> int:
    fd = os.open(folder, os.O_RDWR | os.O_TMPFILE)
    os.ftruncate(fd, SIZE)
    return fd


def page(number: int) -> bytes:
    return bytes([number]) * PAGE


def pages_in(fd: int) -> list[int]:
    return [number for start, end in data_extents(fd, SIZE) for number in range(start // PAGE, end // PAGE)]


@given(st.lists(st.sampled_from([0, FILE_PAGE, OWN_PAGE, SWAPPED_PAGE]), max_size=40), st.integers(0, 3))
def test_own_pages_are_found_in_runs(entries: list[int], blocks_before: int) -> None:
    entries = [0] * (512 * blocks_before) + entries
    found = [
        number for start, end in own_pages(struct.pack(f"<{len(entries)}Q", *entries)) for number in range(start, end)
    ]
    assert found == [number for number, entry in enumerate(entries) if entry in (OWN_PAGE, SWAPPED_PAGE)]


def test_runs_are_as_long_as_they_can_be() -> None:
    entries = [0, OWN_PAGE, OWN_PAGE, FILE_PAGE, SWAPPED_PAGE]
    assert list(own_pages(struct.pack("<5Q", *entries))) == [Extent(1, 3), Extent(4, 5)]


def test_a_sparse_file_is_copied_sparsely(tmp_path: Path, target: int) -> None:
    source = fresh(tmp_path)
    os.pwrite(source, page(1), 3 * PAGE)
    os.pwrite(source, page(2), SIZE - PAGE)
    copy(source, target, data_extents(source, SIZE))
    assert pages_in(target) == [3, 63]
    assert os.pread(target, SIZE, 0) == os.pread(source, SIZE, 0)
    os.close(source)


def test_an_empty_file_has_no_data(target: int) -> None:
    assert list(data_extents(target, SIZE)) == []


def test_a_ledger_tells_what_changed() -> None:
    ledger = Ledger(8)
    data = page(1) + page(2) + page(3)
    assert list(ledger.changed(2, data)) == [Extent(0, 3 * PAGE)]
    assert list(ledger.changed(2, data)) == []
    assert list(ledger.changed(2, page(9) + page(2) + page(9))) == [Extent(0, PAGE), Extent(2 * PAGE, 3 * PAGE)]


def test_zeros_count_as_content_once() -> None:
    ledger = Ledger(1)
    assert list(ledger.changed(0, bytes(PAGE))) == [Extent(0, PAGE)]
    assert list(ledger.changed(0, bytes(PAGE))) == []


def test_own_memory_cannot_be_cut_off() -> None:
    memory = OwnMemory(SIZE, huge_pages=False, track=False)
    for size in (0, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    memory.close()


@pytest.mark.parametrize("track", [False, True])
def test_own_memory_is_saved_whole_and_diffs_hold_changes(track: bool, target: int, tmp_path: Path) -> None:
    memory = OwnMemory(SIZE, huge_pages=False, track=track)
    os.pwrite(memory.fd, page(1), 5 * PAGE)
    os.pwrite(memory.fd, page(2), 9 * PAGE)
    memory.save_all(target)
    assert pages_in(target) == [5, 9]
    os.pwrite(memory.fd, page(3), 9 * PAGE)
    os.pwrite(memory.fd, page(4), 20 * PAGE)
    diff = fresh(tmp_path)
    memory.save_changes(diff)
    assert pages_in(diff) == ([9, 20] if track else [5, 9, 20])
    copy(diff, target, data_extents(diff, SIZE))
    assert os.pread(target, SIZE, 0) == os.pread(memory.fd, SIZE, 0)
    os.close(diff)
    memory.close()


class Fork:
    """A file mapped privately by this very process, as QEMU would."""

    def __init__(self, folder: Path, *, track: bool) -> None:
        fd = fresh(folder)
        for number in (1, 2, 3):
            os.pwrite(fd, page(number), number * PAGE)
        self.memory = ForkedMemory(fd, SIZE, track=track)
        self.mapped = mmap.mmap(fd, SIZE, flags=mmap.MAP_PRIVATE)
        anchor = ctypes.c_char.from_buffer(self.mapped)
        self.memory.attach(os.getpid(), ctypes.addressof(anchor))
        del anchor

    def write(self, number: int, value: int) -> None:
        self.mapped[number * PAGE : (number + 1) * PAGE] = page(value)

    def close(self) -> None:
        self.mapped.close()
        self.memory.close()


@pytest.mark.parametrize("track", [False, True])
def test_a_fork_saves_its_own_pages_over_the_file(track: bool, target: int, tmp_path: Path) -> None:
    fork = Fork(tmp_path, track=track)
    assert fork.mapped[PAGE] == 1  # read only: still the file's page
    fork.write(2, 7)
    fork.write(40, 8)
    diff = fresh(tmp_path)
    fork.memory.save_changes(diff)
    assert pages_in(diff) == [2, 40]
    fork.memory.save_all(target)
    assert os.pread(target, SIZE, 0) == fork.mapped[:]
    assert pages_in(target) == [1, 2, 3, 40]
    later = fresh(tmp_path)
    fork.write(40, 9)
    fork.memory.save_changes(later)
    assert pages_in(later) == ([40] if track else [2, 40])
    os.close(diff)
    os.close(later)
    fork.close()


def test_a_fork_may_be_saved_into_its_own_file(tmp_path: Path) -> None:
    fork = Fork(tmp_path, track=False)
    fork.write(2, 7)
    fork.memory.save_changes(fork.memory.fd)
    assert os.pread(fork.memory.fd, SIZE, 0) == fork.mapped[:]
    fork.close()
