"""The agent's tasks on files: content, records, paths, events; and all of them in a guest."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from task_rig import Done, Tasks, archive_of, blob, member, records

from firkin.manager.firkin import Firkin
from firkin.spec import MachineSpec

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices, mounts"),
]


def test_content_is_read_in_ranges(tasks: Tasks, tmp_path: Path) -> None:
    data = os.urandom(700_000)
    (tmp_path / "f").write_bytes(data)
    for offset, length, expected in [
        (0, -1, data), (100_000, 500_000, data[100_000:600_000]), (699_990, 100, data[-10:]), (800_000, -1, b""),
        (5, 0, b""), (1, 2**63 - 1, data[1:]),
    ]:  # fmt: skip
        assert tasks("read", tmp_path / "f", offset, length) == Done(0, expected, "")


def test_content_of_what_is_no_plain_file(tasks: Tasks, tmp_path: Path) -> None:
    assert tasks("read", "/proc/version", 0, -1).out == Path("/proc/version").read_bytes()
    assert tasks("read", "/dev/zero", 0, 300_000).out == bytes(300_000)
    assert tasks("read", tmp_path, 0, -1) == Done(errno.EISDIR, b"", f"{tmp_path}: Is a directory\n")
    assert tasks("read", tmp_path / "none", 0, -1).code == errno.ENOENT


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_content_is_written_in_three_ways(tasks: Tasks, tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "f", os.urandom(size)
    assert tasks("write", path, "640", "new", data=data) == Done(0, b"", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert tasks("write", path, "600", "new", data=b"x") == Done(errno.EEXIST, b"", f"{path}: File exists\n")
    assert path.read_bytes() == data
    assert tasks("write", path, "600", "append", data=data).code == 0
    assert path.read_bytes() == data * 2
    assert tasks("write", path, "600", "replace", data=b"end").code == 0
    assert path.read_bytes() == b"end"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_records_say_what_lstat_says(tasks: Tasks, zoo: Path) -> None:
    listed = records(tasks("list", zoo).out)
    assert {os.fsdecode(name) for name in listed} == {path.name for path in zoo.iterdir()}
    for raw, (numbers, target) in listed.items():
        path = zoo / os.fsdecode(raw)
        info = path.lstat()
        device = info.st_rdev if path.name == "null" else 0
        assert numbers == (
            info.st_mode, info.st_uid, info.st_gid, info.st_nlink, device, info.st_ino, info.st_size,
            info.st_blocks * 512, info.st_mtime_ns // 10**9, info.st_mtime_ns % 10**9,
        )  # fmt: skip
        assert os.fsdecode(target) == (str(path.readlink()) if path.is_symlink() else "")


def test_stat_looks_at_a_link_or_through_it(tasks: Tasks, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_text("four")
    [(name, (numbers, target))] = records(tasks("stat", tmp_path / "link").out).items()
    assert (name, target, stat.S_ISLNK(numbers[0])) == (b"link", b"file", True)
    [(name, (numbers, target))] = records(tasks("stat", tmp_path / "link", "follow").out).items()
    assert (name, target, numbers[6]) == (b"link", b"", 4)
    assert [*records(tasks("stat", "/").out)] == [b"/"]


def test_a_folder_of_thousands_is_listed_whole(tasks: Tasks, tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}-{'x' * 50}").touch()
    assert len(records(tasks("list", tmp_path).out)) == 3000


def test_folders_are_made(tasks: Tasks, tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c"
    assert tasks("mkdir", deep, "700").code == errno.ENOENT
    assert tasks("mkdir", f"{deep}/", "1777", "parents").code == 0
    assert [stat.S_IMODE(path.stat().st_mode) for path in (deep, deep.parent)] == [0o1777, 0o755]
    assert tasks("mkdir", deep, "700", "parents").code == 0
    assert tasks("mkdir", deep, "700").code == errno.EEXIST
    (tmp_path / "file").touch()
    assert tasks("mkdir", tmp_path / "file", "700", "parents").code == errno.EEXIST


def test_trees_are_removed_and_links_not_followed(tasks: Tasks, zoo: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (zoo / "a/way-out").symlink_to(outside)
    for number in range(500):
        (zoo / "empty" / str(number)).touch()
    assert tasks("remove", zoo) == Done(errno.ENOTEMPTY, b"", f"{zoo}: Directory not empty\n")
    assert tasks("remove", zoo, "tree") == Done(0, b"", "")
    assert not zoo.exists()
    assert (outside / "precious").exists()
    assert tasks("remove", zoo, "tree").code == errno.ENOENT
    assert tasks("remove", "/", "tree").code == errno.EBUSY
    (tmp_path / "link").symlink_to(outside)
    assert tasks("remove", tmp_path / "link", "tree").code == 0
    assert (outside / "precious").exists()


def test_paths_are_renamed_linked_and_given_away(tasks: Tasks, tmp_path: Path) -> None:
    path, link = tmp_path / "f", tmp_path / "l"
    path.touch()
    assert tasks("symlink", "f", link).code == 0
    assert tasks("chmod", link, "4711").code == 0
    assert tasks("chown", link, 1234, -1).code == 0
    info = path.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o711, 1234, 0)
    assert tasks("rename", path, tmp_path / "g").code == 0
    assert (tmp_path / "g").exists()
    assert tasks("rename", path, tmp_path / "g") == Done(errno.ENOENT, b"", f"{path}: No such file or directory\n")


@pytest.mark.parametrize(
    "words",
    [
        [], ["none"], ["get"], ["get", "a", "b", "c"], ["read", "f", "x", "1"], ["read", "f", "0", "-2"],
        ["write", "f", "999", "new"], ["write", "f", "644", "soon"], ["stat", "f", "deep"], ["mkdir", "f", ""],
        ["mkdir", "f", "700", "all"], ["remove", "f", "all"], ["chmod", "f", "+x"], ["chown", "f", "root", "0"],
        ["watch", "f", "all"], ["chmod", "f", "10000"], ["chown", "f", "4294967295", "0"],
    ],
)  # fmt: skip
def test_words_that_make_no_sense_are_refused(tasks: Tasks, words: list[str]) -> None:
    done = tasks(*words)
    assert done.code == (errno.EINVAL if words and words != ["none"] else errno.ENOSYS)
    assert done.err.count("\n") == 1


def test_a_message_is_one_line_whatever_the_path(tasks: Tasks) -> None:
    assert tasks("stat", b"/no\nsuch\x1b[31m").err == "/no\\012such\\033[31m: No such file or directory\n"
    long = tasks("stat", "/" + "x" * 3000).err
    assert long.endswith(": File name too long\n")
    assert len(long) < 1024


# Statistics and events


def test_many_files_at_once(tasks: Tasks, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    os.mkfifo(tmp_path / "fifo")
    data = tasks("files", "/proc/version", tmp_path / "none", tmp_path / "large", tmp_path / "fifo", tmp_path).out
    contents, at = [], 0
    while at < len(data):
        content, at = blob(data, at)
        contents.append(content)
    assert contents == [Path("/proc/version").read_bytes(), b"", b"x" * 65_536, b"", b""]


def test_processes_are_listed(tasks: Tasks) -> None:
    with subprocess.Popen(["sleep", "60"], user=1234) as sleeper:
        data = tasks("processes").out
        sleeper.kill()
    found, at = {}, 0
    while at < len(data):
        pid, uid = struct.unpack_from("<II", data, at)
        status, at = blob(data, at + 8)
        command, at = blob(data, at)
        found[pid] = (uid, status.split()[1], command)
    assert found[sleeper.pid] == (1234, b"(sleep)", b"sleep\x0060\x00")
    assert os.getpid() in found


IN = {"MODIFY": 0x2, "CLOSE": 0x8, "FROM": 0x40, "TO": 0x80, "CREATE": 0x100, "DELETE": 0x200, "DELETE_SELF": 0x400}
OVERFLOW, ISDIR = 0x4000, 1 << 30


class Watch:
    """Events as they come."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process, self.out = process, process.stdout
        assert self.next() == (0, "")

    def next(self) -> tuple[int, str]:
        mask, length = struct.unpack("<II", self.out.read(8))
        return mask, os.fsdecode(self.out.read(length))

    def until(self, mask: int, path: str) -> list[tuple[int, str]]:
        """All events up to this one, which must come."""
        events = [self.next()]
        while events[-1] != (mask, path):
            events.append(self.next())
        return events


@pytest.fixture
def watch(tasks: Tasks) -> Iterator[Callable[..., Watch]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: object) -> Watch:
        started.append(tasks.start("watch", *words))
        return Watch(started[-1])

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_events_of_a_folder(watch: Callable[..., Watch], tmp_path: Path) -> None:
    events = watch(tmp_path)
    (tmp_path / "f").write_text("x")
    assert events.until(IN["CLOSE"], "f") == [(IN["CREATE"], "f"), (IN["MODIFY"], "f"), (IN["CLOSE"], "f")]
    (tmp_path / "f").rename(tmp_path / "g")
    assert events.until(IN["TO"], "g") == [(IN["FROM"], "f"), (IN["TO"], "g")]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/quiet").touch()
    (tmp_path / "g").unlink()
    assert events.until(IN["DELETE"], "g") == [(IN["CREATE"] | ISDIR, "sub"), (IN["DELETE"], "g")]


def test_events_of_a_tree_that_grows_and_moves(watch: Callable[..., Watch], tmp_path: Path) -> None:
    (tmp_path / "old/deep").mkdir(parents=True)
    events = watch(tmp_path, "tree")
    (tmp_path / "old/deep/f").touch()
    events.until(IN["CREATE"], "old/deep/f")
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/c/f").touch()
    events.until(IN["CREATE"], "a/b/c/f")
    (tmp_path / "a").rename(tmp_path / "z")
    (tmp_path / "z/b/c/g").touch()
    events.until(IN["CREATE"], "z/b/c/g")
    (tmp_path / "z").rename(tmp_path.parent / f"{tmp_path.name}-gone")
    (tmp_path.parent / f"{tmp_path.name}-gone/b/silent").touch()
    (tmp_path / "last").touch()
    told = events.until(IN["CREATE"], "last")
    assert not [path for _, path in told if "silent" in path]


def test_a_watch_ends_with_what_it_watches(watch: Callable[..., Watch], tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    events = watch(tmp_path / "f")
    (tmp_path / "f").unlink()
    events.until(IN["DELETE_SELF"], "")
    assert events.process.wait(10) == 0


def test_a_reader_that_sleeps_is_told_what_it_missed(watch: Callable[..., Watch], tmp_path: Path) -> None:
    events = watch(tmp_path)
    name = "x" * 200
    for number in range(30_000):
        (tmp_path / f"{name}{number}").touch()
    events.until(OVERFLOW, "")


# In a guest


@pytest.mark.guest
def test_the_guests_own_root_is_unpacked_into_through_its_links(firkin: Firkin) -> None:
    with firkin.run(MachineSpec(image="busybox", memory_mib=128)) as machine:
        machine.exec("sh", "-c", "mkdir /a && ln -s /a /absolute && ln -s a /relative", check=True)
        packed = archive_of(member("absolute/one", data=b"1"), member("/relative/two", data=b"22"), member("top"))
        with machine.task("put", "/", stdin=True) as put:
            put.write(packed)
            put.close_stdin()
            assert put.result(timeout_s=30).returncode == 0
        assert machine.exec("cat", "/a/one", "/a/two", "/top", check=True).stdout == b"122"
        with machine.task("get", "/a") as get:
            done = get.result(timeout_s=30)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            assert sorted(tar.getnames()) == ["a", "a/one", "a/two"]


@pytest.mark.guest
def test_a_disk_that_fills_up_in_the_guest_is_told(firkin: Firkin) -> None:
    with firkin.run(MachineSpec(image="busybox", memory_mib=128)) as machine:
        with machine.task("put", "/tmp", stdin=True) as put:
            put.write(archive_of(member("large", data=bytes(128 << 20))), timeout_s=60)
            put.close_stdin()
            done = put.result(timeout_s=60)
        assert (done.returncode, done.stderr) == (errno.ENOSPC, b"large: No space left on device\n")
        assert machine.exec("ls", "/tmp", check=True).stdout == b""
