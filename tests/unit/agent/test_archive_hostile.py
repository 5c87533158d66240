"""Archives that a guest sends, unpacked: what is right arrives as it was, what is hostile reaches nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firkin.agent.archive import pack
from firkin.agent.extract import Unpacking, unpack
from firkin.agent.members import ArchiveReader
from firkin.errors import BadArchive, FirkinError, GuestError, HostError, KernelRefused

CONTENT = Unpacking(None)
ROOT = os.geteuid() == 0


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def header(name: str, kind: bytes = tarfile.REGTYPE, *, data: bytes = b"", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def folder(name: str) -> bytes:
    return header(name, tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> bytes:
    return header(name, tarfile.SYMTYPE, linkname=target)


def twin(name: str, target: str) -> bytes:
    return header(name, tarfile.LNKTYPE, linkname=target)


def take(where: Path, *members: bytes, unpacking: Unpacking = CONTENT) -> int:
    return unpack(pieces(b"".join(members) + bytes(1024)), str(where), unpacking)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder to unpack into; beside it is what no archive may touch."""
    (tmp_path / "target").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("untouched")
    return tmp_path / "target"


def outside_is_untouched(target: Path) -> bool:
    outside = target.parent / "outside"
    return sorted(target.parent.iterdir()) == [outside, target] and [
        (entry.name, entry.read_text(), entry.stat().st_nlink) for entry in outside.iterdir()
    ] == [("file", "untouched", 1)]


def tree_of(where: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(where.rglob("*")):
        status = path.lstat()
        content: object = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        if path.is_symlink():
            content = str(path.readlink())
        found[str(path.relative_to(where))] = (status.st_mode, status.st_mtime_ns, status.st_nlink, content)
    return found


def test_a_tree_arrives_as_it_was(tmp_path: Path, target: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "deeper").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(os.urandom(300_000))
    (tree / "sub" / "deeper" / "twin").hardlink_to(tree / "sub" / "file")
    (tree / "link").symlink_to("/etc/passwd")
    (tree / os.fsdecode(b"new\nline \xff")).write_bytes(b"x")
    (tree / "empty").touch(mode=0o604)
    os.mkfifo(tree / "fifo")
    (tree / "sub").chmod(0o555)
    os.utime(tree / "sub", ns=(0, 1_111_111_111_222_333_444))
    unpack(pack(str(tree), "tree"), str(target), Unpacking(b"tree", b"copy"))
    assert tree_of(target / "copy") == tree_of(tree)
    (tree / "sub").chmod(0o755)


def test_holes_stay_holes(tmp_path: Path, target: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        os.pwrite(file.fileno(), b"here", 3 << 30)
        file.truncate(10 << 30)
    unpack(pack(str(tmp_path / "sparse"), "s"), str(target), Unpacking(b"s", b"s"))
    status = (target / "s").stat()
    assert status.st_size == 10 << 30
    assert status.st_blocks < 1000
    with (target / "s").open("rb") as file:
        assert os.pread(file.fileno(), 4, 3 << 30) == b"here"


@pytest.mark.parametrize(
    "members",
    [
        [header("/tmp/firkin-absolute", data=b"x")],
        [header("../outside/file", data=b"x")],
        [header("a/../../outside/file", data=b"x")],
        [folder("a"), header("a/..", data=b"x")],
        [folder("..")],
        [link("out", "../outside"), header("out/file", data=b"x")],
        [link("out", "../outside"), folder("out")],
        [link("out", "../outside"), folder("out/sub")],
        [link("out", "../outside/file"), twin("twin", "out"), header("twin/x", data=b"x")],
        [header("ours", data=b"x"), link("out", "../outside"), twin("twin", "out/file")],
        [header("ours", data=b"x"), twin("twin", "../outside/file")],
        [header("ours", data=b"x"), twin("twin", "/etc/passwd")],
        [header("ours", data=b"x"), twin("twin", "")],
        [header("ours", data=b"x"), twin("ours/deeper", "ours")],
        [header("", data=b"x")],
        [header("./", data=b"x")],
        [link("empty", "")],
        [header("late/file", data=b"x")],
        [header("x" * 256, data=b"x")],
        [header("/".join(["d"] * 300), data=b"x")],
        [header("x", data=b"x", pax_headers={"path": "a\0b"})],
        [header("x", data=b"x", pax_headers={"path": "../outside/file"})],
        [header("x", tarfile.SYMTYPE, linkname="y", pax_headers={"linkpath": "a\0b"})],
        [header("x", data=b"x", pax_headers={"size": "99999999999999999999"})],
        [header("x", data=b"x", pax_headers={"size": "-1"})],
        [header("x", data=b"x", pax_headers={"uid": "4294967295"})],
        [header("x", data=b"x", pax_headers={"mtime": "9" * 30})],
        [header("x", data=b"x", pax_headers={"mtime": "nan"})],
        [header("x", data=b"x", pax_headers={"comment": "y" * 70_000})],
        [header("x", tarfile.CONTTYPE)],
        [header("x", tarfile.GNUTYPE_SPARSE)],
        [header("x", tarfile.GNUTYPE_LONGNAME, data=b"../outside/file\0")],
        [header("x", tarfile.XGLTYPE, data=b"30 path=../outside/new-file..\n")],
        [header("x", tarfile.XHDTYPE, data=b"9 path=x\n")],
        [header("x", tarfile.XHDTYPE, data=b"9 path=x\n") * 2],
        [header("x", tarfile.XHDTYPE, data=b"999 path=x\n"), header("y")],
        [header("x", tarfile.XHDTYPE, data=b"nonsense"), header("y")],
        [b"\x01" * 512],
    ],
    ids=range(40 - 2),
)
def test_what_no_guest_should_send_is_refused_and_writes_nothing_outside(target: Path, members: list[bytes]) -> None:
    with pytest.raises((BadArchive, HostError)):
        take(target, *members)
    assert outside_is_untouched(target)
    assert not Path("/tmp/firkin-absolute").exists()
    assert not list(target.rglob(".*firkin-*"))


def test_what_was_not_asked_for_is_refused(target: Path) -> None:
    with pytest.raises(BadArchive, match="not what was asked for"):
        take(target, header("passwd", data=b"x"), header(".bashrc", data=b"evil"), unpacking=Unpacking(b"passwd", b"p"))
    assert [entry.name for entry in target.iterdir()] == ["p"]


@pytest.mark.parametrize("size", [1 << 33, (1 << 63) - 1, 1 << 63, 1 << 64])
def test_promised_lengths_cost_nothing(target: Path, size: int) -> None:
    info = tarfile.TarInfo("big")
    info.size = size
    with pytest.raises(BadArchive):
        take(target, info.tobuf(tarfile.GNU_FORMAT), b"little")
    assert list(target.iterdir()) == []


def sparse(realsize: int, chart: bytes, data: bytes = b"") -> bytes:
    records = {"major": "1", "minor": "0", "name": "s", "realsize": str(realsize)}
    body = chart.ljust(-(-len(chart) // 512) * 512, b"\0") + data
    return header("s", data=body, pax_headers={f"GNU.sparse.{key}": value for key, value in records.items()})


@pytest.mark.parametrize(
    "member",
    [
        sparse(10, b"1\n0\n11\n", bytes(11)),
        sparse(10, b"1\n0\n10\n", bytes(5)),
        sparse(10, b"1\n0\n5\n", bytes(10)),
        sparse(10, b"1000000000\n"),
        sparse((1 << 63) - 1, b"1\n9223372036854775807\n1\n", b"x"),
        sparse(1 << 70, b"0\n"),
        sparse((1 << 63) - 1, b"0\n"),
        header("s", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}),
        header("s", pax_headers={"GNU.sparse.major": "0", "GNU.sparse.minor": "1"}),
    ],
)
def test_sparse_files_that_lie_are_refused(target: Path, member: bytes) -> None:
    with pytest.raises((BadArchive, KernelRefused)):
        take(target, member)
    assert list(target.iterdir()) == []


def test_an_archive_that_is_cut_leaves_no_half_file(target: Path) -> None:
    (target / "file").write_text("old")
    whole = header("first", data=b"whole") + header("file", data=bytes(100_000))
    for cut in (100, 600, 2000, 50_000):
        with pytest.raises(BadArchive, match="too early"):
            unpack(pieces(whole[:cut]), str(target), CONTENT)
        assert (target / "file").read_text() == "old"
    assert {entry.name for entry in target.iterdir()} == {"first", "file"}


def test_an_archive_without_an_end_is_cut_short(target: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield bytes(1024)
        while True:
            yield bytes(4096)

    with pytest.raises(BadArchive, match="after its end"):
        unpack(endless(), str(target), CONTENT)


def test_an_error_of_the_source_comes_through_and_leaves_no_half_file(target: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield header("file", data=bytes(100_000))[:5000]
        raise GuestError("the machine went away")

    with pytest.raises(GuestError, match="went away"):
        unpack(broken(), str(target), CONTENT)
    assert list(target.iterdir()) == []


def test_files_and_links_are_replaced_and_never_followed(target: Path) -> None:
    (target / "file").symlink_to("../outside/file")
    take(target, header("file", data=b"new"), header("file", data=b"newer"), link("file", "elsewhere"))
    assert (target / "file").readlink() == Path("elsewhere")
    assert outside_is_untouched(target)


def test_a_folder_takes_no_files_place_nor_a_file_a_folders(target: Path) -> None:
    (target / "folder").mkdir()
    (target / "file").touch()
    with pytest.raises(HostError, match="folder: cannot be replaced by a file"):
        take(target, header("folder", data=b"x"))
    with pytest.raises(HostError, match="file: cannot be replaced by a folder"):
        take(target, folder("file"))


def test_a_hard_link_reaches_only_what_the_archive_brought(target: Path) -> None:
    (target / "secret").write_text("mine")
    os.utime(target / "secret", (9e9, 9e9))
    time.sleep(0.02)  # the kernel's clock for files ticks every few milliseconds
    for members in ([], [header("ours", data=b"x")]):
        with pytest.raises(BadArchive, match="did not bring"):
            take(target, *members, twin("public", "secret"))
    take(target, header("ours", data=b"x"), twin("twin", "ours"), twin("twin", "ours"))
    assert (target / "twin").samefile(target / "ours")
    assert sorted(entry.name for entry in target.iterdir()) == ["ours", "secret", "twin"]


def test_a_target_that_cannot_be_opened_is_named(target: Path) -> None:
    with pytest.raises(KernelRefused, match="nosuch: No such file"):
        unpack(pieces(bytes(1024)), str(target / "nosuch"), CONTENT)


def test_a_folder_that_was_there_keeps_its_mode(target: Path) -> None:
    (target / "mine").mkdir(mode=0o700)
    take(target, header(".", tarfile.DIRTYPE, mode=0o777), header("mine", tarfile.DIRTYPE, mode=0o777))
    assert stat.S_IMODE((target / "mine").stat().st_mode) == 0o700
    assert stat.S_IMODE(target.stat().st_mode) != 0o777


def test_set_user_id_and_devices_are_not_taken(target: Path) -> None:
    left_out = take(
        target,
        header("tool", data=b"x", mode=0o6755, uid=0),
        header("disk", tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666),
        header("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    )
    assert left_out == 2
    assert stat.S_IMODE((target / "tool").stat().st_mode) == 0o755
    assert [entry.name for entry in target.iterdir()] == ["tool"]


@pytest.mark.skipif(not ROOT, reason="only root can keep owners")
def test_root_keeps_owners_set_user_id_and_devices_where_asked(target: Path) -> None:
    left_out = take(
        target,
        header("d", tarfile.DIRTYPE, mode=0o2750, uid=12, gid=34),
        header("d/tool", data=b"x", mode=0o4755, uid=12, gid=34),
        header("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, uid=0, gid=0),
        header("d/link", tarfile.SYMTYPE, linkname="tool", uid=12, gid=34),
        unpacking=Unpacking(None, keep=True),
    )
    assert left_out == 0
    assert [(entry.lstat().st_uid, entry.lstat().st_gid) for entry in (target / "d", target / "d/tool")] == [
        (12, 34)
    ] * 2
    assert (target / "d" / "link").lstat().st_uid == 12
    assert stat.S_IMODE((target / "d/tool").stat().st_mode) == 0o4755
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o2750
    assert (target / "d/null").stat().st_rdev == os.makedev(1, 3)


@pytest.mark.skipif(not ROOT, reason="a small disk is a tmpfs in a mount namespace, which needs root")
def test_a_full_disk_is_told_and_leaves_no_half_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from firkin.agent.extract import Unpacking, unpack\n"
        "from firkin.agent.archive import pack; from firkin.errors import NoSpace\n"
        "try: unpack(pack(sys.argv[1], 'f'), sys.argv[2], Unpacking(b'f', b'f'))\n"
        "except NoSpace as error: print(error)\n"
        "print([entry.name for entry in Path(sys.argv[2]).iterdir()])\n"
    )
    (tmp_path / "large").write_bytes(os.urandom(4 << 20))
    (tmp_path / "small").mkdir()
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}/small"
    argv = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run([*argv, f"{tmp_path}/large", f"{tmp_path}/small"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/small/f: no space left on the disk\n[]\n"


VALID = b"".join(
    [
        folder("d"),
        header("d/file", data=b"x" * 700, mtime=1.5),
        link("d/link", "file"),
        twin("d/twin", "d/file"),
        sparse(5000, b"1\n4096\n4\n", b"data"),
        header("d/" + "long" * 40, data=b"y"),
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.booleans())
def test_a_mangled_archive_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], mend: bool
) -> None:
    data = bytearray(VALID)
    for at, value in changes:
        data[at] = value
        if mend:
            start = at - at % 512
            block = bytes(data[start : start + 512])
            data[start + 148 : start + 156] = b"%06o\0 " % tarfile.calc_chksums(block)[0]  # type: ignore[attr-defined]
    where = tmp_path_factory.mktemp("mangled")
    (where / "target").mkdir()
    try:
        unpack(pieces(bytes(data) + bytes(1024)), str(where / "target"), CONTENT)
    except FirkinError:
        pass
    else:
        assert any((where / "target").iterdir())
    assert [entry.name for entry in where.iterdir()] == ["target"]
    assert not list((where / "target").rglob(".*.firkin-*"))


@given(st.binary(max_size=4096))
def test_garbage_is_refused(data: bytes) -> None:
    try:
        list(ArchiveReader(pieces(data)).members())
    except BadArchive:
        return
    assert not data.strip(b"\0")
