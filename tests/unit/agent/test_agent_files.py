"""Files in the guest: records and events as bytes, errors out of what tasks say, transfers that stall or fail."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.agent.fs import GuestFs, absolute
from firkin.agent.messages import ExitStatus
from firkin.agent.outputs import Output
from firkin.agent.process import Process
from firkin.agent.records import FileChange, FileEvent, RecordReader, changes
from firkin.agent.transfer import Transfer, task_error
from firkin.errors import AgentError, GuestFileError


def blob(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def record(name: bytes, target: bytes = b"", seconds: int = 1) -> bytes:
    return struct.pack("<IIIIQQQQqq", 0o100644, 1, 2, 1, 0, 7, 5, 4096, seconds, 5) + blob(name) + blob(target)


@given(st.integers(1, 200))
def test_records_are_read_however_they_are_split(step: int) -> None:
    wire = record(b"a") + record(b"new\nline \xff", b"target", -2) + record(b"x" * 255)
    reader = RecordReader()
    found = [stat for at in range(0, len(wire), step) for stat in reader.stats(wire[at : at + step])]
    reader.finish()
    assert [stat.name for stat in found] == ["a", "new\nline \udcff", "x" * 255]
    assert (found[0].uid, found[0].gid, found[0].inode, found[0].size, found[0].disk_bytes) == (1, 2, 7, 5, 4096)
    assert (found[1].target, found[1].mtime_ns) == ("target", -2 * 10**9 + 5)
    assert (found[0].is_file, found[0].is_dir, found[0].is_symlink, found[0].permissions) == (True, False, False, 0o644)


def test_a_record_that_promises_too_much_or_is_cut_is_refused() -> None:
    with pytest.raises(AgentError, match="a name of 4294967295 bytes"):
        list(RecordReader().stats(record(b"")[:-8] + struct.pack("<I", 0xFFFFFFFF)))
    reader = RecordReader()
    assert list(reader.stats(record(b"name")[:-1])) == []
    with pytest.raises(AgentError, match="cut short"):
        reader.finish()


@given(st.binary(max_size=2000))
def test_garbage_is_records_or_refused(data: bytes) -> None:
    try:
        list(RecordReader().stats(data))
        list(RecordReader().events(data))
    except AgentError:
        pass


def test_a_mask_may_hold_several_changes() -> None:
    assert list(changes(0x100 | 0x40000000, "d")) == [FileEvent(FileChange.CREATED, "d", True)]
    assert [event.change for event in changes(0x2 | 0x4, "f")] == [FileChange.MODIFIED, FileChange.ATTRIBUTES]
    assert [event.change for event in changes(0x2000, "")] == [FileChange.GONE]
    assert list(changes(0, "")) == []


@pytest.mark.parametrize(
    ("said", "text", "path"),
    [
        (b"/a: No such file or directory\n", "/a: No such file or directory", "/a"),
        (b"/a: x\n/b: y\n/c: z\n", "/a: x (and 2 more)", "/a"),
        (b"/a: b: c\n", "/a: b: c", "/a: b"),
        (b"", "/p: No such file or directory", "/p"),
        (b"\x1b[31m\xff: r\x07\n", "?[31m\ufffd: r?", "?[31m\ufffd"),
    ],
)
def test_what_a_task_says_becomes_an_error_fit_for_a_terminal(said: bytes, text: str, path: str) -> None:
    error = task_error("/p", errno.ENOENT, said)
    assert (str(error), error.path, error.errno) == (text, path, errno.ENOENT)


class FakeTask:
    """A task that says these pieces and ends so; None where it stalls."""

    def __init__(self, *pieces: Output | None, status: ExitStatus | None = None, takes: int = 1 << 30) -> None:
        self._pieces = iter(pieces)
        self._end = status or ExitStatus(code=0)
        self._takes = takes
        self.status: ExitStatus | None = None
        self.taken = b""
        self.stdin_closed = self.closed = False

    def read(self, timeout_s: float | None = None) -> Output | None:
        try:
            piece = next(self._pieces)
        except StopIteration:
            self.status = self._end
            return None
        if piece is None:
            raise TimeoutError
        return piece

    def write(self, data: bytes, timeout_s: float | None = None) -> None:
        if len(self.taken) + len(data) > self._takes:
            if self._end.code == 0:
                raise TimeoutError
            self.status = self._end
            return
        self.taken += data

    def close_stdin(self) -> None:
        self.stdin_closed = True

    def close(self) -> None:
        self.closed = True


def transfer(task: FakeTask) -> Transfer:
    return Transfer(cast("Process", task), "web:/x", stall_s=0.5)


def test_what_a_task_writes_is_received_and_its_notes_kept() -> None:
    counted: list[int] = []
    task = FakeTask(Output(1, b"ab"), Output(2, b"/s: a socket is left out\n"), Output(1, b"c"))
    with Transfer(cast("Process", task), "x", on_bytes=counted.append) as moved:
        assert b"".join(moved.receive()) == b"abc"
    assert (moved.notes, counted, task.closed) == (["/s: a socket is left out"], [2, 1], True)


def test_a_task_that_fails_or_is_killed_or_stalls_is_an_error() -> None:
    failed = FakeTask(Output(1, b"ab"), Output(2, b"/x: Input/output error\n"), status=ExitStatus(code=5))
    with pytest.raises(GuestFileError, match="/x: Input/output error"):
        list(transfer(failed).receive())
    with pytest.raises(AgentError, match="the guest killed"):
        list(transfer(FakeTask(status=ExitStatus(signal=9))).receive())
    with pytest.raises(GuestFileError, match=r"web:/x: nothing moved for 0.5 s") as stalled:
        list(transfer(FakeTask(Output(1, b"ab"), None)).receive())
    assert (stalled.value.errno, "frozen" in stalled.value.hint) == (errno.ETIMEDOUT, True)


def test_complaints_are_kept_within_bounds() -> None:
    task = FakeTask(*[Output(2, b"x" * 65536)] * 100)
    moved = transfer(task)
    assert list(moved.receive()) == []
    assert sum(map(len, moved.notes)) <= 1000


def test_sending_stops_when_the_task_has_ended() -> None:
    sent: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(1000):
            sent.append(number)
            yield b"x" * 1000

    full = FakeTask(Output(2, b"/f: No space left on device\n"), status=ExitStatus(code=28), takes=5000)
    with pytest.raises(GuestFileError, match="No space left"):
        transfer(full).send(pieces())
    assert len(sent) == 6
    frozen = FakeTask(takes=5000)
    with pytest.raises(GuestFileError, match="nothing moved"):
        transfer(frozen).send(pieces())
    well = FakeTask()
    transfer(well).send(iter([b"a", b"b"]))
    assert (well.taken, well.stdin_closed) == (b"ab", True)


def test_paths_start_at_the_root_and_an_empty_one_is_refused() -> None:
    assert (absolute("a/b"), absolute("/a")) == ("/a/b", "/a")
    for path in ("", "a\0b"):
        with pytest.raises(GuestFileError):
            absolute(path)


def test_nothing_is_asked_of_the_guest_for_a_bad_path() -> None:
    def start(*words: str | bytes, user: str | None = None, stdin: bool = False) -> Process:
        raise AssertionError(words)

    with pytest.raises(GuestFileError, match="empty"):
        GuestFs(start).remove("", recursive=True)
