from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_faults import PageFaultHandler

from firkin.engine.snapshot import uffd
from firkin.engine.snapshot.uffd import HandledMemory, HandlerFailed

PAGE = 4096
SIZE = 64 * PAGE
CONTENT = b"".join(bytes([number]) * PAGE for number in range(64))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def handler(tmp_path: Path, source: Path) -> Iterator[PageFaultHandler]:
    handler = PageFaultHandler(tmp_path / "uffd.sock", source)
    yield handler
    handler.close()


@pytest.mark.parametrize("track", [False, True])
def test_a_handler_fills_all_memory(tmp_path: Path, handler: PageFaultHandler, track: bool) -> None:
    memory = HandledMemory(SIZE, str(tmp_path / "uffd.sock"), huge_pages=False, track=track)
    assert os.pread(memory.fd, SIZE, 0) == CONTENT
    assert handler.served == 64
    assert handler.region["size"] == SIZE
    assert handler.region["page_size"] == handler.region["page_size_kib"] == PAGE
    memory.close()


def test_a_handler_may_bring_more_than_was_asked_for(tmp_path: Path, source: Path) -> None:
    handler = PageFaultHandler(tmp_path / "uffd.sock", source, pages_at_once=64)
    memory = HandledMemory(SIZE, str(tmp_path / "uffd.sock"), huge_pages=False, track=False)
    assert os.pread(memory.fd, SIZE, 0) == CONTENT
    memory.close()
    handler.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(HandlerFailed) as refused:
        HandledMemory(SIZE, str(tmp_path / "none"), huge_pages=False, track=False)
    assert refused.value.what == "Failed to connect to UDS Unix stream"


def test_a_handler_that_stops_is_given_up(tmp_path: Path, source: Path) -> None:
    handler = PageFaultHandler(tmp_path / "uffd.sock", source, stops_after=3)
    child = os.fork()
    if child == 0:  # the thread that waits for a page ends with its process only
        uffd.PATIENCE_S = 0.2
        code = 1
        try:
            HandledMemory(SIZE, str(tmp_path / "uffd.sock"), huge_pages=False, track=False)
        except HandlerFailed as failure:
            code = 0 if failure.what == "The page fault handler does not answer" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    handler.close()
