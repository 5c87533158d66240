"""The task `put` and archives that are wrong, or mean harm."""

from __future__ import annotations

import errno
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_rig import FOLDER, HARD, KIB, LINK, Done, Tasks, archive_of, gnu_tar, member

from firkin.host.wait import wait_until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices, mounts"),
]
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


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


@settings(SLOW, max_examples=120)
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
