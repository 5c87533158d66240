"""Archives that the host writes: what tarfile reads back, sparse files, odd names, memory."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin.agent.archive import pack
from firkin.agent.sparse import Extent, decode_map, encode_map, extents
from firkin.errors import BadArchive, HostError, KernelRefused


def opened(pieces: Iterator[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(pieces)), encoding="utf-8", errors="surrogateescape")


def names(pieces: Iterator[bytes]) -> set[str]:
    with opened(pieces) as archive:
        return set(archive.getnames())


def test_a_folder_with_all_that_folders_hold(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_bytes(b"content")
    (tree / "file").chmod(0o4751)
    os.utime(tree / "file", ns=(5, 1_234_567_890_123_456_789))
    (tree / "sub" / "link").symlink_to("../file")
    (tree / "sub" / "twin").hardlink_to(tree / "file")
    os.mkfifo(tree / "fifo")
    with opened(pack(str(tree), "there")) as archive:
        members = {member.name: member for member in archive}
        assert set(members) == {f"there{rest}" for rest in ("", "/sub", "/file", "/sub/link", "/sub/twin", "/fifo")}
        assert members["there/sub/link"].linkname == "../file"
        assert members["there/fifo"].isfifo()
        linked = {members["there/file"], members["there/sub/twin"]}
        (copy,) = (member for member in linked if member.islnk())
        (first,) = linked - {copy}
        assert copy.linkname == first.name
        assert first.mode == 0o4751
        assert first.pax_headers["mtime"] == "1234567890.123456789"
        assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}
        content = archive.extractfile(first)
        assert content is not None
        assert content.read() == b"content"


def test_content_alone_has_no_member_for_its_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").touch()
    assert names(pack(str(tmp_path), "")) == {"sub", "sub/file"}


def test_owners_are_kept_where_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with opened(pack(str(tmp_path / "file"), "file", owners=True)) as archive:
        assert (archive.getmembers()[0].uid, archive.getmembers()[0].gid) == (os.getuid(), os.getgid())


@pytest.mark.parametrize("name", [b"new\nline", b"not \xff utf-8", "größe".encode(), b"x" * 255, b" \t\x1b[31m"])
def test_names_of_any_bytes(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"here")
    (tmp_path / os.fsdecode(b"link " + name[:200])).symlink_to(os.fsdecode(name))
    with opened(pack(str(tmp_path), "d")) as archive:
        found = {os.fsencode(member.name): member for member in archive}
        assert found[b"d/" + name].size == 4
        assert os.fsencode(found[b"d/link " + name[:200]].linkname) == name


def test_a_socket_is_left_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert names(pack(str(tmp_path), "d")) == {"d"}


def test_a_sparse_file_costs_what_it_holds_and_reads_back(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate(20 << 20)
    packed = b"".join(pack(str(sparse), "s"))
    assert len(packed) < 100_000
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        content = archive.extractfile("s")
        assert content is not None
        assert content.read() == sparse.read_bytes()


def test_a_file_of_nothing_but_a_hole(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10 << 30)
    with opened(pack(str(tmp_path / "hole"), "h")) as archive:
        assert archive.getmembers()[0].size == 10 << 30


def test_small_holes_are_sent_when_there_are_too_many(tmp_path: Path) -> None:
    path = tmp_path / "holey"
    with path.open("wb") as file:
        for at in range(50):
            os.pwrite(file.fileno(), b"x" * 4096, at << 16)
        os.pwrite(file.fileno(), b"x", 1 << 30)
        size = path.stat().st_size
        assert extents(file.fileno(), size) == [*(Extent(at << 16, 4096) for at in range(50)), Extent(1 << 30, 1)]
        assert extents(file.fileno(), size, most=10) == [Extent(0, (49 << 16) + 4096), Extent(1 << 30, 1)]


def test_more_than_8_gib_of_data_has_its_size_in_the_header() -> None:
    info = tarfile.TarInfo("big")
    info.size = (8 << 30) + 1
    assert tarfile.TarInfo.frombuf(info.tobuf(tarfile.GNU_FORMAT), "utf-8", "strict").size == info.size


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelRefused, match="nosuch: No such file"):
        list(pack(str(tmp_path / "nosuch"), "x"))


def test_a_file_that_shrinks_is_an_error_and_one_that_grows_is_taken_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(1 << 20))
    pieces = pack(str(path), "log")
    first = next(pieces)
    os.truncate(path, 70_000)
    with pytest.raises(HostError, match="shrank"):
        list(pieces)
    path.write_bytes(bytes(1 << 20))
    pieces = pack(str(path), "log")
    first = next(pieces)
    os.truncate(path, 2 << 20)
    with opened(iter([first, *pieces])) as archive:
        assert archive.getmembers()[0].size == 1 << 20


def test_what_goes_away_meanwhile_is_left_out(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(100_000))
    pieces = pack(str(tmp_path), "d")
    first = next(pieces) + next(pieces)
    for name in "abc":
        (tmp_path / name).unlink()
    assert len(names(iter([first, *pieces]))) == 2


def test_a_deep_tree_needs_no_deep_stack(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 400)
    deep.mkdir(parents=True)
    assert len(names(pack(str(tmp_path), "t"))) == 401


def test_memory_does_not_grow_with_size(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10 << 30)
        for at in range(0, 10 << 30, 1 << 30):
            os.pwrite(file.fileno(), b"x" * 4096, at)
    with (tmp_path / "dense").open("wb") as file:
        file.truncate(200 << 20)
    program = (
        "import sys, resource; from firkin.agent import archive, sparse\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sys.argv[1:]: print(sum(len(piece) for piece in archive.pack(name, 'x')))\n"
        "archive.extents = lambda fd, size: None\n"
        "print(sum(len(piece) for piece in archive.pack(sys.argv[2], 'x')))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "large"), str(tmp_path / "dense")]
    sparse, hole, whole, grown_kib = map(int, subprocess.run(argv, capture_output=True, check=True).stdout.split())
    assert sparse < 100_000
    assert hole < 100_000
    assert whole > 200 << 20
    assert grown_kib < 8192


def take_from(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


@pytest.mark.parametrize("parts", [[], [Extent(0, 5)], [Extent(4096, 4096), Extent(1 << 40, 7)]])
def test_a_map_reads_back(parts: list[Extent]) -> None:
    chart = encode_map(parts, 1 << 41)
    assert len(chart) % 512 == 0
    assert decode_map(take_from(chart).read, 1 << 41) == (parts, len(chart))


@pytest.mark.parametrize(
    "chart",
    [
        b"99999999999\n",
        b"18446744073709551617\n",
        b"1\n0\n",
        b"1\n-5\n6\n",
        b"1\n5\n99\n",
        b"2\n10\n10\n15\n10\n",
        b"x" * 512,
        b"1\n" + b"9" * 600,
    ],
)
def test_a_map_that_lies_is_refused(chart: bytes) -> None:
    with pytest.raises(BadArchive):
        decode_map(take_from(chart.ljust(1024, b"\0")).read, 50)


def test_modes_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir(mode=0o700)
    with opened(pack(str(tmp_path / "dir"), "dir")) as archive:
        assert archive.getmembers()[0].mode == stat.S_IMODE((tmp_path / "dir").stat().st_mode)
