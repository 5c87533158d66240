"""The agent's tasks on files: archives both ways against GNU tar and tarfile, content, records, paths, events."""

from __future__ import annotations

import errno
import io
import os
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_rig import Done, Tasks, blob, build, records, tree_of

from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.spec import MachineSpec

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices, mounts"),
]
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
KIB = 1024


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    return build(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    """The same with bounds that a test can meet."""
    return build(tmp_path_factory.mktemp("tight"), "-DTAR_MAP_MAX=64 -DTAR_LATE_MAX=8")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can get to; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="firkin-tasks-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """One of everything that an archive can hold."""
    zoo = tmp_path / "zoo"
    long = "n" * 200
    for folder in ("a/b", "empty", f"{long}/{long}"):
        (zoo / folder).mkdir(parents=True)
    (zoo / "a/file").write_text("hello\n")
    (zoo / "a/other-name").hardlink_to(zoo / "a/file")
    (zoo / "a/nothing").touch()
    (zoo / "link").symlink_to("../elsewhere/" + long)
    (zoo / long / long / long).write_text("far down")
    (zoo / "new\nline").write_text("x")
    Path(os.fsdecode(bytes(zoo) + b"/\xff\xfe")).write_text("y")
    (zoo / "large").write_bytes(os.urandom(1_000_003))
    os.mkfifo(zoo / "fifo")
    os.mknod(zoo / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with (zoo / "sparse").open("wb") as file:
        file.truncate(8 << 20)
        os.pwrite(file.fileno(), b"data" * KIB, 3 << 20)
    os.truncate(os.open(zoo / "hole", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC), 5 << 20)
    os.chown(zoo / "large", 12_345, 3_000_000)
    (zoo / "a/file").chmod(0o4751)
    (zoo / "empty").chmod(0o1777)
    os.utime(zoo / "a/nothing", ns=(0, -1_500_000_000))
    os.utime(zoo / "large", ns=(0, 40_000_000_000 * 10**9 + 123_456_789))
    os.utime(zoo / "a", ns=(0, 1_000_000_000))
    return zoo


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


def gnu_tar(*words: str, data: bytes = b"") -> bytes:
    return subprocess.run(["tar", *words], input=data, check=True, capture_output=True).stdout


def archive(fill: Callable[[tarfile.TarFile], None], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        fill(tar)
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", data: bytes = b"") -> bytes:
    """A header and its data, without an end."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def archive_of(*members: bytes) -> bytes:
    return b"".join(members) + bytes(2 * 512)


FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


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


@pytest.fixture
def scratch(tmp_path: Path) -> Callable[[], Path]:
    """A new empty folder at each call, for the many examples of one test."""
    return lambda: Path(tempfile.mkdtemp(dir=tmp_path))


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


# Archives that are wrong, or mean harm


HOSTILE = [
    ([member("../outside", data=b"x")], errno.EXDEV, "../outside: a name with `..` in it could leave the folder"),
    ([member("a/../../outside")], errno.EXDEV, "a/../../outside: a name with `..`"),
    ([member("l", HARD, link="../outside")], errno.EXDEV, "../outside: a name with `..`"),
    ([member("l", HARD, link="missing")], errno.ENOENT, "missing: No such file"),
    ([member("d", LINK, link=".."), member("d/outside")], errno.EXDEV, "d/outside: a link on the way leads out"),
    ([member("d", LINK, link="/"), member("d/outside")], errno.EXDEV, "d/outside: a link on the way leads out"),
    ([member("d", LINK, link="/tmp"), member("d", FOLDER)], errno.EXDEV, "d: a link on the way leads out"),
    ([member("d", LINK, link="/"), member("l", HARD, link="d/etc/passwd")], errno.EXDEV, "d/etc/passwd: a link on"),
    ([member("d", LINK, link="d"), member("d/x")], errno.ELOOP, "d/x: "),
    ([member("d", FOLDER), member("d")], errno.EISDIR, "d: Is a directory"),
    ([member("d"), member("d", FOLDER)], errno.ENOTDIR, "d: Not a directory"),
    ([member("", data=b"x")], errno.EISDIR, ": the archive has something else than a folder"),
    ([member("x" * 300)], errno.ENAMETOOLONG, "File name too long"),
    ([member("x/" * 3000)], errno.EBADMSG, "the archive: a pax header has a value that is too long"),
    ([b"\x1f\x8b" + b"z" * 2000], errno.EBADMSG, "the archive: a header is damaged, or this is no tar archive"),
]


@pytest.mark.parametrize(("members", "code", "text"), HOSTILE)
def test_a_hostile_archive_is_refused_with_a_reason(
    tasks: Tasks, target: Path, members: list[bytes], code: int, text: str
) -> None:
    done = tasks("put", target, data=archive_of(*members))
    assert done.code == code
    assert text in done.err
    assert done.err.count("\n") == 1
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_the_folder_must_exist(tasks: Tasks, target: Path) -> None:
    (target / "file").touch()
    for name, code in (("none", errno.ENOENT), ("file", errno.ENOTDIR)):
        done = tasks("put", target / name, data=archive_of())
        assert (done.code, done.err) == (code, f"{target}/{name}: {os.strerror(code)}\n")


def test_nothing_is_no_archive(tasks: Tasks, target: Path) -> None:
    assert tasks("put", target) == Done(errno.EBADMSG, b"", "the archive: the archive ends in the middle\n")


def test_what_is_in_the_way_is_replaced_and_never_written_through(tasks: Tasks, target: Path) -> None:
    outside = target.parent / "outside"
    outside.write_text("precious")
    (target / "soft").symlink_to(outside)
    (target / "hard").hardlink_to(outside)
    tasks.put(archive_of(member("soft", data=b"new"), member("hard", data=b"new")), target)
    assert outside.read_text() == "precious"
    assert not (target / "soft").is_symlink()
    assert (target / "hard").read_text() == "new"


def test_absolute_names_and_links_within_stay_below(tasks: Tasks, target: Path) -> None:
    (target / "real").mkdir()
    (target / "way").symlink_to("real")
    tasks.put(archive_of(member("/way/file", data=b"x"), member("way", FOLDER)), target)
    assert (target / "real/file").read_bytes() == b"x"
    assert (target / "way").is_symlink()


def test_links_may_point_anywhere_but_are_only_made(tasks: Tasks, target: Path) -> None:
    tasks.put(archive_of(member("link", LINK, link="/etc/shadow")), target)
    assert (target / "link").readlink() == Path("/etc/shadow")


def header_of(name: str, *, size: int = 0, kind: bytes = b"0") -> bytearray:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return bytearray(info.tobuf(tarfile.GNU_FORMAT))


def pax_of(records: bytes, name: str = "f", size: int = 0) -> bytes:
    padding = bytes(-len(records) % 512)
    return bytes(header_of("pax", size=len(records), kind=b"x")) + records + padding + bytes(header_of(name, size=size))


@pytest.mark.parametrize("size", [2**63 - 1, 9 << 30, 600])
def test_half_a_file_is_removed(tasks: Tasks, target: Path, size: int) -> None:
    done = tasks("put", target, data=bytes(header_of("f", size=size)) + b"x" * 512)
    assert done == Done(errno.EBADMSG, b"", "f: the archive ends in the middle of this file\n")
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "records",
    [
        b"9 path=\n", b"8 path\n", b"0 path=x\n", b"99999999999999999999 path=x\n", b"-9 path=x\n", b"path=x\n",
        b"10 path=xy", b"11 path=a\0\n", b"14 size=-1\n\n\n\n", b"11 size=1x\n", b"30 size=99999999999999999999\n",
        b"12 mtime=x\n", b"17 uid=4294967295\n", b"\0" * 20, b"18446744073709551620 a=\n",
    ],
)  # fmt: skip
def test_a_damaged_pax_header_is_refused(tasks: Tasks, target: Path, records: bytes) -> None:
    done = tasks("put", target, data=pax_of(records) + bytes(1024))
    assert (done.code, done.err.startswith("the archive: a pax header")) == (errno.EBADMSG, True)


@pytest.mark.parametrize(
    "text",
    [b"1\n0\n", b"2\n0\n10\n5\n10\n", b"1\n99\n10\n", b"x\n", b"\n", b"1\n0\n9223372036854775807\n", b"9" * 30 + b"\n",
     b"300000\n0\n0\n", b"1\n0\n20\n"],
)  # fmt: skip
def test_a_damaged_map_is_refused_and_its_file_removed(tasks: Tasks, target: Path, text: bytes) -> None:
    pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.realsize=100\n22 GNU.sparse.name=file\n"
    pax = b"".join(b"%d %s\n" % (len(line) + 4, line) for line in (
        b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=100", b"GNU.sparse.name=file"))  # fmt: skip
    data = text.ljust(512, b"\0") + b"d" * 10
    done = tasks("put", target, data=pax_of(pax, size=len(data)) + data.ljust(1024, b"\0") + bytes(1024))
    assert done.code == errno.EBADMSG
    assert "the map of a sparse file" in done.err
    assert list(target.iterdir()) == []


def test_an_old_kind_of_sparse_file_is_refused_with_the_way_out(tasks: Tasks, zoo: Path, target: Path) -> None:
    done = tasks("put", target, data=gnu_tar("-cS", "--format=gnu", "-C", str(zoo), "hole"))
    assert done.code == errno.EBADMSG
    assert "--format=posix --sparse-version=1.0" in done.err


def test_memory_stays_bounded_whatever_the_headers_say(tasks: Tasks, target: Path) -> None:
    comment = b"comment=" + b"c" * (50 << 20)
    with tasks.start("put", target) as process:
        assert process.stdin is not None
        process.stdin.write(pax_of(b"%d %s\n" % (len(comment) + 10, comment)) + bytes(1024))
        process.stdin.flush()
        assert wait_until((target / "f").exists, timeout_s=10)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert process.communicate(timeout=10) == (b"", b"")
    assert process.returncode == 0
    assert int(status.split("VmHWM:")[1].split()[0]) < 40 * KIB, "KiB, most of them the checkers'"


def test_an_archive_cut_anywhere_is_an_error(tasks: Tasks, zoo: Path, scratch: Callable[[], Path]) -> None:
    packed = tasks.get(zoo / "a")
    for cut in range(0, len(packed) - 1024, 300):
        done = tasks("put", scratch(), data=packed[:cut])
        assert (done.code, done.err.count("\n")) == (errno.EBADMSG, 1)


@settings(SLOW, max_examples=200)
@given(data=st.data())
def test_a_mutated_archive_never_leaves_the_folder(
    tasks: Tasks, scratch: Callable[[], Path], data: st.DataObject
) -> None:
    world = scratch()
    (world / "target").mkdir()
    packed = bytearray(archive_of(member("d", LINK, link=".."), member("é" * 60, data=b"x" * 600)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packed) - 1))
        packed[at] = data.draw(st.integers(0, 255))
        start = at // 512 * 512
        packed[start + 148 : start + 156] = b" " * 8
        packed[start + 148 : start + 156] = b"%06o\0 " % sum(packed[start : start + 512])
    done = tasks("put", world / "target", data=bytes(packed))
    assert 0 <= done.code < 134
    assert (done.code == 0) or done.err
    assert [path.name for path in world.iterdir()] == ["target"]


def test_a_full_disk_is_told_with_the_path(tasks: Tasks, tmp_path: Path) -> None:
    packed = archive_of(member("large", data=bytes(3 << 20)))
    script = (
        f"mount -t tmpfs -o size=1m none {tmp_path} && {tasks.program} put {tmp_path}; echo $?; ls {tmp_path};"
        f"head -c 3000000 /dev/zero | {tasks.program} write {tmp_path}/w 644 new; echo $?; ls {tmp_path}"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], input=packed, capture_output=True, timeout=60)
    assert done.stdout.split() == [b"28", b"28"]
    assert done.stderr == f"large: No space left on device\n{tmp_path}/w: No space left on device\n".encode()


# Content, records and paths


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
