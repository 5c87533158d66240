"""The agent's tasks as a program for this host, with address and undefined-behaviour checks; and trees as values."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

GUEST = Path(__file__).parents[2] / "guest"
KIB = 1024
STRICT = {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
RECORD = struct.Struct("<IIIIQQQQqq")


@dataclass(frozen=True)
class Done:
    """How a task ended."""

    code: int
    out: bytes
    err: str


class Tasks:
    """Runs tasks as the agent does: on pipes, in a process of their own."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def argv(self, *words: object) -> list[str | bytes]:
        return [str(self.program), *(word if isinstance(word, bytes) else str(word) for word in words)]

    def __call__(self, *words: object, data: bytes = b"", user: int | None = None) -> Done:
        done = subprocess.run(
            self.argv(*words), input=data, capture_output=True, env={**os.environ, **STRICT}, timeout=60,
            user=user, group=user, extra_groups=[] if user else None,
        )  # fmt: skip
        text = done.stderr.decode(errors="surrogateescape")
        assert "Sanitizer" not in text, text
        assert "runtime error" not in text, text
        return Done(done.returncode, done.stdout, text)

    def get(self, *words: object) -> bytes:
        done = self("get", *words)
        assert (done.code, done.err) == (0, "")
        return done.out

    def put(self, archive: bytes, *words: object) -> None:
        assert self("put", *words, data=archive) == Done(0, b"", "")

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self.argv(*words), stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **STRICT})


def build(folder: Path, limits: str = "") -> Tasks:
    """Build the program; `limits` are macros that make bounds small enough to be met."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    program = folder / "task-run"
    subprocess.run(["make", "-s", "-C", GUEST, f"BUILD={folder}", f"LIMITS={limits}", str(program)], check=True)
    return Tasks(program)


def describe(path: Path, *, times: bool = True) -> tuple[object, ...]:
    """All of a file that an archive keeps."""
    info = path.lstat()
    content: object = None
    if stat.S_ISREG(info.st_mode):
        content = path.read_bytes() if info.st_size < 1 << 24 else info.st_blocks
    elif stat.S_ISLNK(info.st_mode):
        content = os.fsencode(path.readlink())
    elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        content = info.st_rdev
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    links = 1 if stat.S_ISDIR(info.st_mode) else info.st_nlink
    return (info.st_mode, info.st_uid, info.st_gid, size, links, info.st_mtime_ns if times else 0, content)


def tree_of(folder: Path, *, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Everything below a folder, and the folder as b"."; socket files are not in archives."""
    found = {b".": describe(folder, times=times)}
    for path in folder.rglob("*"):
        if not path.is_socket():
            found[os.fsencode(path.relative_to(folder))] = describe(path, times=times)
    return found


def records(data: bytes) -> dict[bytes, tuple[tuple[int, ...], bytes]]:
    """What `list` says: name → numbers and the target of a link."""
    found, at = {}, 0
    while at < len(data):
        numbers = RECORD.unpack_from(data, at)
        name, at = blob(data, at + RECORD.size)
        target, at = blob(data, at)
        found[name] = (numbers, target)
    return found


def blob(data: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<I", data, at)
    assert at + 4 + length <= len(data)
    return data[at + 4 : at + 4 + length], at + 4 + length


def fill_zoo(zoo: Path) -> None:
    """Make a folder with one of everything that an archive can hold."""
    zoo.mkdir()
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
