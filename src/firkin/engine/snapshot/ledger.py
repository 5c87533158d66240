"""What each page of guest memory held at the last snapshot, as a hash: nobody keeps a record of writes for us."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from firkin.engine.snapshot.pagemap import PAGE_SIZE, page_runs
from firkin.host.sparse import Extent


class Ledger:
    """64 bits for each page, keyed by a secret of this process: two contents have one hash once in 10**19 pages."""

    def __init__(self, pages: int) -> None:
        self._seen = array("q", bytes(8 * pages))  # 0: never

    def note(self, first_page: int, data: bytes) -> None:
        """Take down what the pages hold."""
        for _ in self._news(first_page, data):
            pass

    def changed(self, first_page: int, data: bytes) -> Iterator[Extent]:
        """Runs of pages in `data`, as byte offsets in it, that differ from what was noted; what they hold is noted."""
        return page_runs(self._news(first_page, data))

    def _news(self, first_page: int, data: bytes) -> Iterator[bool]:
        seen = self._seen
        for page, at in enumerate(range(0, len(data), PAGE_SIZE), first_page):
            now = hash(data[at : at + PAGE_SIZE]) or 1
            is_new, seen[page] = now != seen[page], now
            yield is_new
