from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin.engine.snapshot.handover import Handover

_libc = ctypes.CDLL(None)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    path = tmp_path / "memory"
    path.write_bytes(b"memory")
    path.chmod(0o400)
    return path


def in_child(memory: Path, check: Callable[[], bool]) -> bool:
    """Whether `check` holds in a process under the filter."""
    fd = os.open(memory, os.O_RDONLY)
    handover = Handover(fd)
    child = os.fork()
    if child == 0:
        code = 2
        try:
            handover.install()
            code = 0 if check() else 1
        finally:
            os._exit(code)
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_opens_for_reading_and_writing_gets_the_file(memory: Path) -> None:
    def check() -> bool:
        fd: int = _libc.open(b"/not/there", os.O_RDWR)
        return fd == 0 and os.pread(fd, 10, 0) == b"memory"

    assert in_child(memory, check)


def test_it_cannot_be_written_or_cut_off(memory: Path) -> None:
    def check() -> bool:
        fd: int = _libc.open(str(memory).encode(), os.O_RDWR)
        refused = 0
        for attempt in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0)):
            try:
                attempt()
            except OSError:
                refused += 1
        return refused == 2

    assert in_child(memory, check)
    assert memory.read_bytes() == b"memory"


def test_other_ways_of_opening_are_left_alone(memory: Path) -> None:
    def check() -> bool:
        read: int = _libc.open(b"/dev/zero", os.O_RDONLY)
        both = os.open("/dev/null", os.O_RDWR)  # Python's own asks for close-on-exec, as QEMU does for all but memory
        return read > 0 and both > 0 and os.read(read, 1) == b"\0" and os.write(both, b"x") == 1

    assert in_child(memory, check)
