"""Which pages of a private file mapping a process has made its own, by its page table."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator

from firkin.host.sparse import Extent

PAGE_SIZE = 4096
ENTRY_SIZE = 8  # of /proc/PID/pagemap, for each page
_PRESENT, _SWAPPED, _OF_FILE = 1 << 63, 1 << 62, 1 << 61
_NO_PAGES = bytes(512 * ENTRY_SIZE)


def own_pages(entries: bytes) -> Iterator[Extent]:
    """Runs of pages that are no longer the file's: page numbers, counted from the first entry."""
    start = None
    for block in range(0, len(entries), len(_NO_PAGES)):
        piece = entries[block : block + len(_NO_PAGES)]
        if start is None and piece == _NO_PAGES[: len(piece)]:
            continue  # most of a large guest
        for page, (entry,) in enumerate(struct.iter_unpack("<Q", piece), block // ENTRY_SIZE):
            own = entry & _SWAPPED or (entry & _PRESENT and not entry & _OF_FILE)
            if own and start is None:
                start = page
            elif not own and start is not None:
                yield Extent(start, page)
                start = None
    if start is not None:
        yield Extent(start, len(entries) // ENTRY_SIZE)


def page_runs(marks: Iterable[bool]) -> Iterator[Extent]:
    """Runs of pages that are marked, as byte offsets from the first page."""
    start, at = None, 0
    for at, mark in zip(itertools.count(0, PAGE_SIZE), marks):
        if mark and start is None:
            start = at
        elif not mark and start is not None:
            yield Extent(start, at)
            start = None
    if start is not None:
        yield Extent(start, at + PAGE_SIZE)


def changed_pages(data: bytes, before: bytes) -> Iterator[Extent]:
    """Runs of pages in which `data` differs from what was `before`, as byte offsets. Of the same length, both."""
    if data == before:
        return iter(())
    pages = range(0, len(data), PAGE_SIZE)
    return page_runs(data[at : at + PAGE_SIZE] != before[at : at + PAGE_SIZE] for at in pages)
