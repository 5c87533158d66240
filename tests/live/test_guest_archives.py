"""The tasks `get` and `put`: trees as archives both ways, against GNU tar and tarfile."""

from __future__ import annotations

import errno
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_rig import FOLDER, KIB, Done, Tasks, archive, archive_of, gnu_tar, member, tree_of

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices, mounts"),
]
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can get to; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="firkin-tasks-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


# Archives of a whole tree


def test_a_tree_goes_out_and_in_unchanged(tasks: Tasks, zoo: Path, target: Path) -> None:
    tasks.put(tasks.get(zoo), target)
    assert tree_of(target / "zoo") == tree_of(zoo)


def test_gnu_tar_unpacks_what_get_packs(tasks: Tasks, zoo: Path, target: Path) -> None:
    gnu_tar("-x", "-C", str(target), data=tasks.get(zoo))
    assert tree_of(target / "zoo") == tree_of(zoo)


@pytest.mark.parametrize("options", [["--format=posix", "-S"], ["--format=posix"], ["--format=gnu"]])
def test_put_unpacks_what_gnu_tar_packs(tasks: Tasks, zoo: Path, target: Path, options: list[str]) -> None:
    exact = "gnu" not in options[0]  # that format has no fractions of seconds
    tasks.put(gnu_tar("-c", *options, "-C", str(zoo.parent), "zoo"), target)
    packed, unpacked = tree_of(zoo, times=exact), tree_of(target / "zoo", times=exact)
    assert unpacked == packed


def test_tarfile_reads_what_get_packs(tasks: Tasks, zoo: Path, target: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tasks.get(zoo))) as tar:
        tar.extractall(target, filter="fully_trusted")
    packed, unpacked = tree_of(zoo, times=False), tree_of(target / "zoo", times=False)
    assert unpacked == packed


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_put_unpacks_what_tarfile_packs(tasks: Tasks, zoo: Path, target: Path, form: int) -> None:
    tasks.put(archive(lambda tar: tar.add(zoo, "zoo"), form), target)
    assert tree_of(target / "zoo", times=False) == tree_of(zoo, times=False)


def test_an_archive_of_the_old_format_is_read(tasks: Tasks, target: Path) -> None:
    path = "folder/" * 20 + "file"  # split into prefix and name

    def fill(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(path)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))

    tasks.put(archive(fill, tarfile.USTAR_FORMAT), target)
    assert (target / path).read_bytes() == b"abc"


NAMES = (
    st.binary(min_size=1, max_size=120)
    .map(lambda raw: raw.replace(b"/", b"-").replace(b"\0", b"0"))
    .filter(lambda name: name not in (b".", b".."))
)
MODES = st.integers(0, 0o7777)
TIMES = st.integers(-(2**33), 2**33 - 1).flatmap(lambda s: st.integers(0, 10**9 - 1).map(lambda n: s * 10**9 + n))
LEAVES = st.one_of(
    st.binary(max_size=3000),
    st.binary(min_size=1, max_size=200).map(lambda raw: raw.replace(b"\0", b"0").decode("latin-1")),
)
TREES = st.recursive(
    st.dictionaries(NAMES, st.tuples(LEAVES, MODES, TIMES), max_size=4),
    lambda inner: st.dictionaries(NAMES, st.tuples(inner, MODES, TIMES), max_size=4),
    max_leaves=12,
)


def plant(folder: Path, tree: dict[bytes, tuple[object, int, int]]) -> None:
    """Make the tree: bytes are files, text is a link, dictionaries are folders."""
    for name, (what, mode, mtime) in tree.items():
        path = folder / os.fsdecode(name)
        if isinstance(what, str):
            path.symlink_to(os.fsdecode(what.encode("latin-1")))
        elif isinstance(what, bytes):
            path.write_bytes(what)
        elif isinstance(what, dict):
            path.mkdir()
            plant(path, what)
        if not isinstance(what, str):
            path.chmod(mode)
        os.utime(path, ns=(0, mtime), follow_symlinks=False)


@SLOW
@given(tree=TREES)
def test_any_tree_survives_every_way(
    tasks: Tasks, scratch: Callable[[], Path], tree: dict[bytes, tuple[object, int, int]]
) -> None:
    source, ours, theirs = scratch(), scratch(), scratch()
    plant(source, tree)
    packed = tasks.get(source, ".")
    tasks.put(packed, ours, "copy")
    assert tree_of(ours / "copy") == tree_of(source)
    gnu_tar("-xp", "-C", str(theirs), data=packed)
    assert tree_of(theirs) == tree_of(source)
    back = scratch()
    tasks.put(gnu_tar("-cS", "--format=posix", "-C", str(source), "."), back, "copy")
    assert tree_of(back / "copy") == tree_of(source)


@SLOW
@given(runs=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=12), tail=st.integers(0, 20_000))
def test_holes_stay_holes(tasks: Tasks, scratch: Callable[[], Path], runs: list[tuple[int, int]], tail: int) -> None:
    source, ours, theirs = scratch(), scratch(), scratch()
    with (source / "f").open("wb") as file:
        for hole, data in runs:
            file.seek(hole * 4 * KIB, os.SEEK_CUR)
            file.write(bytes([65 + data]) * (data * KIB))
        file.truncate(file.tell() + tail)
    packed = tasks.get(source / "f")
    tasks.put(packed, ours)
    gnu_tar("-x", "-C", str(theirs), data=packed)
    for copy in (ours / "f", theirs / "f"):
        assert copy.read_bytes() == (source / "f").read_bytes()
        assert copy.stat().st_blocks == (source / "f").stat().st_blocks


def test_a_file_beyond_8_gib(tasks: Tasks, tmp_path: Path, target: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(20 << 30)
        os.pwrite(file.fileno(), b"at the end", (20 << 30) - 10)
    packed = tasks.get(tmp_path / "huge")
    assert len(packed) < 64 * KIB
    tasks.put(packed, target)
    with (target / "huge").open("rb") as copy:
        assert os.pread(copy.fileno(), 10, (20 << 30) - 10) == b"at the end"
    assert (target / "huge").stat().st_size == 20 << 30
    assert (target / "huge").stat().st_blocks < 100


@pytest.mark.parametrize("holes", [60, 64, 65, 500])
def test_more_holes_than_are_remembered_cost_the_smallest(
    tight: Tasks, tasks: Tasks, tmp_path: Path, target: Path, holes: int
) -> None:
    source = tmp_path / "sieve"
    with source.open("wb") as file:
        for number in range(holes):
            file.seek((1 + number % 7) * 64 * KIB, os.SEEK_CUR)
            file.write(b"x" * 4 * KIB)
        file.truncate(file.tell() + (50 << 20))
    packed = tight.get(source)
    tasks.put(packed, target)
    assert (target / "sieve").read_bytes() == source.read_bytes()
    assert len(packed) < source.stat().st_size - (50 << 20)
    exact = (target / "sieve").stat().st_blocks == source.stat().st_blocks
    assert exact == (holes < 64)
    theirs = target / "theirs"
    theirs.mkdir()
    gnu_tar("-x", "-C", str(theirs), data=packed)
    assert (theirs / "sieve").read_bytes() == source.read_bytes()


def test_more_folders_than_are_remembered_keep_their_times(tight: Tasks, tmp_path: Path, target: Path) -> None:
    source = tmp_path / "many"
    for number in range(40):
        (source / f"{number % 5}/{number}/inner").mkdir(parents=True)
        (source / f"{number % 5}/{number}/inner/file").touch()
    for number, path in enumerate(sorted(source.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, number * 10**9))
    tight.put(tight.get(source), target)
    assert tree_of(target / "many") == tree_of(source)


def test_folders_within_each_other_beyond_what_is_remembered_are_refused(tight: Tasks, target: Path) -> None:
    nested = [member("/".join("d" * depth), FOLDER) for depth in range(1, 12)]
    done = tight("put", target, data=archive_of(*nested))
    assert (done.code, done.err) == (errno.E2BIG, "d/d/d/d/d/d/d/d/d: too many folders within each other\n")


# Names that `get` and `put` give


@pytest.mark.parametrize(
    ("path", "first"),
    [("zoo", "zoo"), ("zoo/", "zoo"), ("zoo/a/..", "."), ("zoo/.", "."), ("zoo//a///", "a"), ("zoo/a/file", "file")],
)
def test_the_first_member_is_named_after_the_last_part(tasks: Tasks, zoo: Path, path: str, first: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(tasks.get(f"{zoo.parent}/{path}"))) as tar:
        assert tar.getnames()[0] == first


def test_get_follows_a_link_to_a_folder_only_when_it_names_it_itself(tasks: Tasks, zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "to-zoo").symlink_to("zoo")
    with tarfile.open(fileobj=io.BytesIO(tasks.get(tmp_path / "to-zoo"))) as tar:
        assert [(m.name, m.linkname) for m in tar] == [("to-zoo", "zoo")]
    with tarfile.open(fileobj=io.BytesIO(tasks.get(tmp_path / "to-zoo", "."))) as tar:
        assert tar.getmember("./a/file").isfile()


def test_put_renames_the_first_part_also_in_links(tasks: Tasks, zoo: Path, target: Path) -> None:
    tasks.put(tasks.get(zoo), target, "garden")
    assert tree_of(target / "garden") == tree_of(zoo)
    assert [path.name for path in target.iterdir()] == ["garden"]


def test_the_members_of_a_folder_go_into_one_that_stays_as_it_is(tasks: Tasks, zoo: Path, target: Path) -> None:
    target.chmod(0o1777)
    tasks.put(tasks.get(zoo, "."), target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o1777
    ours, theirs = tree_of(target), tree_of(zoo)
    assert {**ours, b".": None} == {**theirs, b".": None}


def test_sockets_are_left_out_with_a_word(tasks: Tasks, zoo: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(zoo / "socket"))
    done = tasks("get", zoo)
    assert (done.code, done.err) == (0, "zoo/socket: a socket is left out\n")
    with tarfile.open(fileobj=io.BytesIO(done.out)) as tar:
        assert "zoo/socket" not in tar.getnames()


def test_get_goes_on_after_what_it_may_not_read(tasks: Tasks, open_folder: Path) -> None:
    folder = open_folder / "mixed"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    (folder / "b").chmod(0)
    done = Tasks(Path(shutil.copy(tasks.program, open_folder)))("get", folder, user=65_534)
    assert (done.code, done.err) == (errno.EACCES, "mixed/b: Permission denied\n")
    with tarfile.open(fileobj=io.BytesIO(done.out)) as tar:
        assert sorted(tar.getnames()) == ["mixed", "mixed/a", "mixed/c"]


def test_put_as_a_user_gives_everything_to_the_user(tasks: Tasks, open_folder: Path, zoo: Path) -> None:
    (zoo / "null").unlink()
    target = open_folder / "target"
    target.mkdir()
    os.chown(target, 65_534, 65_534)
    theirs = Tasks(Path(shutil.copy(tasks.program, open_folder)))
    assert theirs("put", target, data=tasks.get(zoo), user=65_534) == Done(0, b"", "")
    assert {path.lstat().st_uid for path in target.rglob("*")} == {65_534}
    assert [what[0] for what in tree_of(target / "zoo").values()] == [what[0] for what in tree_of(zoo).values()]


def test_files_of_proc_have_their_content(tasks: Tasks) -> None:
    with tarfile.open(fileobj=io.BytesIO(tasks.get("/proc/version"))) as tar:
        file = tar.extractfile("version")
        assert file is not None
        assert file.read() == Path("/proc/version").read_bytes()


def test_files_that_do_not_say_how_long_they_are_are_cut_with_a_word(tasks: Tasks) -> None:
    with subprocess.Popen(["sh", "-c", "read line", "x" * 100_000], stdin=subprocess.PIPE) as process:
        done = tasks("get", f"/proc/{process.pid}/cmdline")
    assert (done.code, done.err) == (errno.EIO, "cmdline: does not say how long it is; only its start was read\n")
    with tarfile.open(fileobj=io.BytesIO(done.out)) as tar:
        assert tar.getmember("cmdline").size == 64 * KIB


def test_a_tree_deeper_than_is_followed_is_noted(tasks: Tasks, tmp_path: Path) -> None:
    deep = f"{tmp_path}/deep/" + "d/" * 1100
    assert tasks("mkdir", deep, "755", "parents").code == 0
    done = tasks("get", tmp_path / "deep")
    assert (done.code, done.err.endswith(": File name too long\n")) == (errno.ENAMETOOLONG, True)
    assert tasks("remove", tmp_path / "deep", "tree").code == errno.ENAMETOOLONG
    assert tasks("remove", tmp_path / "deep/d/d/d/d" / ("d/" * 500), "tree").code == 0
    assert tasks("remove", tmp_path / "deep", "tree") == Done(0, b"", "")


def test_what_is_mounted_by_the_kernel_is_left_out(tasks: Tasks, tmp_path: Path) -> None:
    (tmp_path / "root/proc").mkdir(parents=True)
    (tmp_path / "root/after").touch()
    script = f"mount -t proc none {tmp_path}/root/proc && exec {tasks.program} get {tmp_path}/root"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"root/proc: a file system of the kernel's is left out\n")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert sorted(tar.getnames()) == ["root", "root/after", "root/proc"]


@pytest.mark.parametrize("size", [1 << 20, 40 << 20])
def test_a_file_that_changes_while_it_is_read_does_not_break_the_archive(
    tasks: Tasks, tmp_path: Path, size: int
) -> None:
    (tmp_path / "f").write_bytes(b"x" * (24 << 20))
    process = tasks.start("get", tmp_path / "f")
    assert process.stdout is not None
    start = os.read(process.stdout.fileno(), 512)
    os.truncate(tmp_path / "f", size)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 0
    with tarfile.open(fileobj=io.BytesIO(start + rest)) as tar:
        file = tar.extractfile("f")
        assert file is not None
        content = file.read()
    assert len(content) == 24 << 20
    assert content[: 1 << 20] == b"x" * (1 << 20)
    assert err == (b"f: shrank while it was read; zeros stand for the rest\n" if size < 24 << 20 else b"")
