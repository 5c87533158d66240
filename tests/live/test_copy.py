"""Copies and files against a real guest: trees both ways, odd names, sparse files, archives, hostile ends."""

from __future__ import annotations

import gzip
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin.agent.records import FileChange
from firkin.agent.transfer import Transfer
from firkin.errors import ExecTimeout, GuestError, GuestFileError, UsageError
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec

pytestmark = [pytest.mark.live, pytest.mark.guest]

SPEC = MachineSpec(image="busybox", memory_mib=256)


@pytest.fixture
def machine(firkin: Firkin) -> Iterator[Machine]:
    with firkin.run(SPEC) as machine:
        yield machine


def cp(firkin: Firkin, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environ = os.environ | {"FIRKIN_HOME": str(firkin.context.paths.home)}
    argv = [sys.executable, "-m", "firkin.cli", "cp", *arguments]
    return subprocess.run(argv, env=environ, input=stdin, capture_output=True, timeout=100)


def fill(tree: Path) -> None:
    """A tree with all that trees have."""
    (tree / "sub" / "deeper").mkdir(parents=True)
    (tree / "sub" / "data").write_bytes(os.urandom(3_000_000))
    (tree / "sub" / "deeper" / "twin").hardlink_to(tree / "sub" / "data")
    (tree / "link").symlink_to("sub/data")
    (tree / "dangling").symlink_to("/no/such")
    (tree / os.fsdecode(b"new\nline \xff\xfe")).write_bytes(b"odd")
    (tree / ("long" * 60)).write_bytes(b"l")
    (tree / "empty").touch(mode=0o640)
    (tree / "tool").touch()
    (tree / "tool").chmod(0o2755)
    os.mkfifo(tree / "fifo")
    with (tree / "sparse").open("wb") as file:
        os.pwrite(file.fileno(), b"here", 3 << 30)
        file.truncate(10 << 30)
    os.utime(tree / "sub", ns=(0, 1_111_111_111_222_333_444))


def described(tree: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes() if status.st_size < 1 << 30 else status.st_size
        mode = status.st_mode & ~(stat.S_ISUID | stat.S_ISGID)
        found[str(path.relative_to(tree))] = (mode, status.st_mtime_ns, status.st_nlink, content)
    return found


def test_a_tree_goes_in_and_comes_out_as_it_was(machine: Machine, tmp_path: Path) -> None:
    fill(tmp_path / "tree")
    into = machine.copy_in(tmp_path / "tree", "/root")
    assert into.notes == ()
    assert into.size < 10_000_000
    assert machine.fs.stat("/root/tree/sparse").size == 10 << 30
    assert machine.fs.stat("/root/tree/sparse").disk_bytes < 1 << 20
    assert machine.fs.stat("/root/tree/tool").permissions == 0o2755
    machine.copy_out("/root/tree", tmp_path / "back")
    assert described(tmp_path / "back") == described(tmp_path / "tree")
    assert (tmp_path / "back" / "sparse").stat().st_blocks < 1000
    assert stat.S_IMODE((tmp_path / "back" / "tool").stat().st_mode) == 0o755


def test_owners_are_kept_where_asked(machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_text("x")
    os.chown(source, 12, 34)
    machine.copy_in(source, "/root/plain")
    machine.copy_in(source, "/root/kept", archive=True)
    assert [(found.uid, found.gid) for found in map(machine.fs.stat, ("/root/plain", "/root/kept"))] == [
        (0, 0),
        (12, 34),
    ]
    machine.copy_out("/root/kept", tmp_path / "plain")
    machine.copy_out("/root/kept", tmp_path / "kept", archive=True)
    assert [(tmp_path / name).stat().st_uid for name in ("plain", "kept")] == [os.geteuid(), 12]


def test_rules_of_docker_cp(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("f")
    fs = machine.fs
    machine.copy_in(tmp_path / "d", "/root/new")
    assert [entry.name for entry in fs.list("/root/new")] == ["f"]
    machine.copy_in(tmp_path / "d", "/root/new")
    assert {entry.name for entry in fs.list("/root/new")} == {"f", "d"}
    machine.copy_in(f"{tmp_path}/d/.", "/root")
    assert fs.read_text("/root/f") == "f"
    fs.symlink("/root/link", "new/d")
    machine.copy_in(tmp_path / "d", "/root/link")
    assert fs.exists("/root/new/d/d/f")
    machine.copy_out("/root/new/d/.", tmp_path / "out")
    assert (tmp_path / "out" / "f").read_text() == "f"
    machine.copy_out("/root/link", tmp_path)
    assert (tmp_path / "link").readlink() == Path("new/d")
    machine.copy_out("/root/link", tmp_path / "followed", follow=True)
    assert (tmp_path / "followed" / "d" / "f").read_text() == "f"
    with pytest.raises(UsageError, match="folder cannot be copied onto a file"):
        machine.copy_in(tmp_path / "d", "/root/f")
    with pytest.raises(UsageError, match="no such folder"):
        machine.copy_in(tmp_path / "d" / "f", "/root/nosuch/")
    with pytest.raises(GuestFileError, match="/root/nosuch: No such file"):
        machine.copy_in(tmp_path / "d", "/root/nosuch/deeper")
    with pytest.raises(GuestFileError, match=f"{machine.name}:/nosuch: No such file"):
        machine.copy_out("/nosuch", tmp_path)


def test_a_whole_guest_comes_out(machine: Machine, tmp_path: Path) -> None:
    done = machine.copy_out("/", tmp_path / "rootfs")
    assert (tmp_path / "rootfs" / "bin" / "busybox").exists()
    assert (tmp_path / "rootfs" / "etc" / "hostname").read_text().strip() == machine.name
    assert any("device files were left out" in note for note in done.notes)
    assert not list((tmp_path / "rootfs" / "proc").iterdir())


def test_from_machine_to_machine(firkin: Firkin, machine: Machine, tmp_path: Path) -> None:
    fill(tmp_path / "tree")
    machine.copy_in(tmp_path / "tree", "/root/tree", archive=True)
    with firkin.run(SPEC) as other:
        done = cp(firkin, f"{machine.name}:/root/tree", f"{other.name}:/tmp/renamed")
        assert (done.returncode, done.stderr) == (0, b"")
        other.copy_out("/tmp/renamed", tmp_path / "back")
    assert described(tmp_path / "back") == described(tmp_path / "tree")


def test_the_command_and_archives_on_its_streams(firkin: Firkin, machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "with: colon"
    source.write_text("content")
    assert cp(firkin, str(source), f"{machine.name}:/tmp/").returncode == 0
    packed = cp(firkin, f"{machine.name}:/tmp", "-")
    assert packed.returncode == 0
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        assert "tmp/with: colon" in archive.getnames()
    assert cp(firkin, "-", f"{machine.name}:/root", stdin=packed.stdout).returncode == 0
    assert machine.fs.read_text("/root/tmp/with: colon") == "content"
    refusals = {
        ("a", "b"): (2, b"neither end is in a machine"),
        ("nosuch:/x", str(tmp_path)): (2, b"not found"),
        (str(tmp_path / "nosuch"), f"{machine.name}:/"): (2, b"nosuch: No such file"),
        (f"{machine.name}:/nosuch", str(tmp_path)): (125, b"/nosuch: No such file"),
        ("-", f"{machine.name}:/root/nosuch"): (125, b"/root/nosuch: No such file"),
        ("-", f"{machine.name}:/etc/hostname"): (125, b"Not a directory"),
    }
    for arguments, (code, text) in refusals.items():
        done = cp(firkin, *arguments)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
        assert b"Traceback" not in done.stderr
    compressed = cp(firkin, "-", f"{machine.name}:/root", stdin=gzip.compress(packed.stdout))
    assert (compressed.returncode, b"compressed" in compressed.stderr) == (2, True)
    cut = cp(firkin, "-", f"{machine.name}:/root", stdin=packed.stdout[:1000])
    assert cut.returncode == 125


def test_a_full_guest_is_told_and_keeps_no_half_file(machine: Machine, tmp_path: Path) -> None:
    machine.exec("mkdir", "/small", check=True)
    machine.exec("mount", "-t", "tmpfs", "-o", "size=1m", "none", "/small", check=True)
    (tmp_path / "large").write_bytes(os.urandom(64 << 20))
    with pytest.raises(GuestFileError, match="No space left"):
        machine.copy_in(tmp_path / "large", "/small/")
    assert machine.fs.list("/small") == []


def test_a_machine_that_dies_in_the_middle_leaves_no_half_file(machine: Machine, tmp_path: Path) -> None:
    machine.exec("sh", "-c", "head -c 100000000 /dev/urandom > /root/large", check=True)
    killer = threading.Thread(target=_kill_when, args=(machine.process().pid, tmp_path / "out"))
    (tmp_path / "out").mkdir()
    killer.start()
    with pytest.raises(GuestError, match="agent"):
        machine.copy_out("/root/large", tmp_path / "out")
    killer.join()
    assert list((tmp_path / "out").iterdir()) == []


def _kill_when(pid: int, folder: Path) -> None:
    deadline = time.monotonic() + 20
    while not list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)


def test_a_frozen_guest_is_given_up(machine: Machine) -> None:
    machine.exec("sh", "-c", "head -c 50000000 /dev/zero > /root/large", check=True)
    engine = machine.process().pid
    with (
        Transfer(machine.task("put", "/root", stdin=True), "in", stall_s=0.5) as into,
        Transfer(machine.task("get", "/root/large"), "out", stall_s=0.5) as out,
    ):
        os.kill(engine, signal.SIGSTOP)
        try:
            with pytest.raises(GuestFileError, match=r"in: nothing moved for 0.5 s"):
                into.send(iter([bytes(1 << 16)] * 1000))
            with pytest.raises(GuestFileError, match=r"out: nothing moved for 0.5 s"):
                list(out.receive())
        finally:
            os.kill(engine, signal.SIGCONT)


def test_memory_of_the_host_does_not_grow_with_the_file(firkin: Firkin, machine: Machine, tmp_path: Path) -> None:
    machine.exec("mkdir", "/big", check=True)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10 << 30)
        for at in range(0, 64 << 20, 1 << 20):
            os.pwrite(file.fileno(), os.urandom(1 << 20), at * 100)
    program = (
        "import re, sys\nfrom pathlib import Path\nfrom firkin.cli import main\n"
        "try: main(['cp', *sys.argv[1:]])\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, *re.findall(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text()))"
    )
    environ = os.environ | {"FIRKIN_HOME": str(firkin.context.paths.home)}
    for ends in ((f"{tmp_path}/large", f"{machine.name}:/big/"), (f"{machine.name}:/big/large", f"{tmp_path}/back")):
        argv = [sys.executable, "-c", program, *ends]
        done = subprocess.run(argv, env=environ, capture_output=True, check=True, timeout=100)
        code, peak_kib = map(int, done.stdout.split())
        assert (code, done.stderr) == (0, b"")
        assert peak_kib < 80 << 10
    assert (tmp_path / "back").stat().st_size == 10 << 30
    assert subprocess.run(["cmp", "-n", "200000000", tmp_path / "large", tmp_path / "back"]).returncode == 0


def test_files_one_by_one(machine: Machine) -> None:
    fs = machine.fs
    fs.mkdir("/root/a/b", parents=True)
    fs.mkdir("/root/a/b", exist_ok=True)
    with pytest.raises(GuestFileError) as refusal:
        fs.mkdir("/root/a/b", parents=True)
    assert refusal.value.errno == 17
    fs.write_text("/root/a/f", "größe\n", mode=0o600)
    fs.write_bytes("/root/a/f", b"\x00\xff", how="append")
    with pytest.raises(GuestFileError, match="exists"):
        fs.write_bytes("/root/a/f", b"", how="new")
    assert fs.read_bytes("/root/a/f") == "größe\n".encode() + b"\x00\xff"
    assert fs.read_bytes("/root/a/f", offset=1, size=1) == b"r"
    found = fs.stat("/root/a/f")
    assert (found.name, found.is_file, found.permissions, found.size, found.links) == ("f", True, 0o600, 10, 1)
    assert abs(found.mtime - time.time()) < 100
    fs.symlink("/root/a/l", "b")
    assert fs.stat("/root/a/l").is_dir
    link = fs.stat("/root/a/l", follow=False)
    assert (link.is_symlink, link.target) == (True, "b")
    assert {entry.name for entry in fs.list("/root/a")} == {"b", "f", "l"}
    fs.chmod("/root/a/f", 0o4711)
    fs.chown("/root/a/f", 7, 8)
    assert (fs.stat("/root/a/f").uid, fs.stat("/root/a/f").gid) == (7, 8)
    fs.rename("/root/a/f", "/root/a/b/new\nline")
    assert [entry.name for entry in fs.list("/root/a/l")] == ["new\nline"]
    with pytest.raises(GuestFileError) as refusal:
        fs.remove("/root/a")
    assert (refusal.value.errno, refusal.value.path) == (39, "/root/a")
    fs.remove("/root/a", recursive=True)
    assert not fs.exists("/root/a")
    assert not fs.exists("/etc/hostname/x")


def test_file_errors_have_number_and_path(machine: Machine) -> None:
    fs = machine.fs
    for call, code in ((fs.read_bytes, 2), (fs.list, 2), (fs.stat, 2), (fs.remove, 2)):
        with pytest.raises(GuestFileError) as refusal:
            call("/nosuch/file")
        assert (refusal.value.errno, refusal.value.path) == (code, "/nosuch/file")
    with pytest.raises(GuestFileError, match="more than 5 bytes"):
        fs.read_bytes("/bin/busybox", max_bytes=5)
    with pytest.raises(GuestFileError, match="empty"):
        fs.remove("", recursive=True)
    with pytest.raises(GuestFileError, match="NUL"):
        fs.exists("a\0b")
    with pytest.raises(GuestFileError) as refusal:
        fs.as_user("1000").write_bytes("/root/x", b"x")
    assert refusal.value.errno == 13
    machine.exec("mkfifo", "/tmp/fifo", check=True)
    with pytest.raises(ExecTimeout, match="still running"):
        fs.within(0.3).read_bytes("/tmp/fifo")


def test_large_files_in_memory(machine: Machine) -> None:
    data = os.urandom(20 << 20)
    machine.fs.write_bytes("/root/data", data)
    assert machine.fs.read_bytes("/root/data") == data


def test_events_come_as_they_happen(machine: Machine) -> None:
    fs = machine.fs
    fs.mkdir("/root/watched/sub", parents=True)
    with fs.watch("/root/watched", recursive=True) as watch:
        with pytest.raises(TimeoutError):
            watch.next(timeout_s=0.1)
        machine.exec("sh", "-c", "echo x > /root/watched/sub/new", check=True)
        changes = [watch.next(10) for _ in range(3)]
        assert [(event.change, event.path) for event in changes if event is not None] == [
            (FileChange.CREATED, "sub/new"),
            (FileChange.MODIFIED, "sub/new"),
            (FileChange.WRITTEN, "sub/new"),
        ]
        fs.remove("/root/watched", recursive=True)
        assert [event.change for event in watch][-1] == FileChange.GONE
    with pytest.raises(GuestFileError, match="No such file"):
        fs.watch("/nosuch")
