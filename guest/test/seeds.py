"""Write the fuzzers' first inputs below a folder: a configuration, scripts that use every frame, and archives."""

from __future__ import annotations

import io
import struct
import sys
import tarfile
from pathlib import Path

BYTES, FRAME, READ, SPEAK, LISTEN, CLOSE, EXIT, TURN, HANG_UP = range(9)  # fuzz_conn.c's steps
EXEC, STDIN, WINDOW, WINSIZE, SIGNAL, SYNC = 3, 5, 8, 9, 10, 14
TASK, DIAL, ATTACH, DETACH, KEPT, IDENTITY = 17, 18, 19, 20, 21, 22
TTY, WANTS_STDIN, KEEP, END = 1, 2, 4, 1
FIRST_PID = 100

CONFIG = b"""firkin 1
hostname box
root /dev/vda squashfs
layer /dev/vdb ext4
interface 06:00:00:00:00:01 10.0.0.2/24 10.0.0.1
interface 06:00:00:00:00:01 fd00::2/64 fd00::1
file 644 0 0 /etc/hosts a%0Ab
init /sbin/init
arg sleep
arg a%20b
env A=1
workdir /tmp
user nobody:12
seed %00%FF
"""

IDENTITY_CONFIG = b"""firkin 1
seed %00%FF
clock 1800000000 999999999
mac 06:00:00:00:00:01 06:00:00:00:00:02
interface 06:00:00:00:00:02 10.0.0.3/24 10.0.0.1
file 444 0 0 /etc/machine-id 0123%0A
hostname fork
bootid 5b868c79-4bfc-4fc4-8e0c-73ff4ceccaab
hangup /run/sshd.pid
"""


def strings(*words: bytes) -> bytes:
    return struct.pack("<I", sum(len(word) + 1 for word in words)) + b"".join(word + b"\0" for word in words)


def step(kind: int, which: int = 0, rest: bytes = b"") -> bytes:
    return bytes([kind, which]) + rest


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 1, host: int = 0) -> bytes:
    return step(FRAME, host, struct.pack("<BBBH", kind, flags, stream, len(payload)) + payload)


def execute(*, flags: int = 0, stream: int = 1, window: int = 100_000) -> bytes:
    request = struct.pack("<HHI", 24, 80, window) + strings(b"cat", b"-u") + strings(b"A=1") + strings() + strings()
    return frame(EXEC, request, flags=flags, stream=stream)


def length(count: int) -> bytes:
    return struct.pack("<H", count)


SCRIPTS = {
    "program": execute(flags=WANTS_STDIN) + frame(STDIN, b"hello", flags=END) + step(LISTEN, 0, length(5))
    + step(SPEAK, 0, length(9)) + step(SPEAK, 128, length(3)) + step(EXIT, 64) + step(READ, 0, length(999)),
    "credit": execute(window=4) + step(SPEAK, 0, length(9)) + step(EXIT, 1) + frame(WINDOW, struct.pack("<I", 100)),
    "terminal": execute(flags=TTY | WANTS_STDIN) + frame(WINSIZE, struct.pack("<HH", 1, 2))
    + frame(STDIN, b"x", flags=END) + frame(SIGNAL, struct.pack("<I", 9)) + step(EXIT, 64),
    "held": execute(flags=WANTS_STDIN) + frame(STDIN, bytes(20_000)) * 3 + step(LISTEN, 0, length(9_000)) * 9,
    "kept": execute(flags=KEEP, window=0) + step(SPEAK, 0, length(9)) + frame(DETACH) + step(SPEAK, 128, length(9))
    + frame(KEPT, stream=2) + frame(ATTACH, struct.pack("<II", 9, FIRST_PID), stream=3) + step(EXIT, 64)
    + frame(WINDOW, struct.pack("<I", 99), stream=3) + frame(KEPT, stream=4),
    "hung-up": execute(flags=KEEP, window=9) + step(SPEAK, 0, length(65_000)) * 8 + step(HANG_UP)
    + step(SPEAK, 0, length(65_000)) * 8 + frame(ATTACH, struct.pack("<II", 2**31, FIRST_PID), host=1)
    + step(READ, 1, length(50_000)) * 4 + step(EXIT, 64),
    "dialled": frame(DIAL, struct.pack("<IH", 1000, 80)) + frame(STDIN, b"x", flags=END) + step(SPEAK, 0, length(9))
    + step(CLOSE) + frame(DIAL, struct.pack("<IH", 1000, 81), stream=2) + frame(SIGNAL, struct.pack("<I", 9), stream=2)
    + frame(DIAL, struct.pack("<IH", 1000, 12), stream=3) + frame(DIAL, struct.pack("<IH", 1000, 82), stream=4),
    "task": frame(TASK, struct.pack("<I", 1000) + strings(b"stat", b"/") + strings(b"nobody"), flags=WANTS_STDIN)
    + frame(SYNC, stream=2) + step(EXIT, 1) + step(EXIT, 64),
    "identity": frame(IDENTITY, IDENTITY_CONFIG) + frame(IDENTITY, b"firkin 1\nhostname x\n", stream=2)
    + frame(IDENTITY, b"firkin 1\nroot a b\n", stream=3) + frame(IDENTITY, stream=4) + frame(KEPT, stream=5),
    "greeting": step(BYTES, 128, b"\x05FK\x01\0\0") + step(BYTES, 128, b"\x08\0\0\0\x20\0\0\0F") + step(TURN),
}  # fmt: skip


def archive(form: int) -> bytes:
    """Two members with names that are too long for a header, and in pax a sparse one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        link = tarfile.TarInfo("l" * 150)
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 150
        tar.addfile(link)
        sparse = tarfile.TarInfo("s")
        sparse.mtime, sparse.size = 1.5, 512 + 5
        sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9000"}
        sparse.pax_headers["GNU.sparse.name"] = "sparse"
        tar.addfile(sparse, io.BytesIO(b"2\n100\n5\n9000\n0\n".ljust(512, b"\0") + b"data."))
    return buffer.getvalue()


def main() -> None:
    folder = Path(sys.argv[1])
    for name in ("conn", "config", "tar"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "config" / "whole").write_bytes(CONFIG)
    (folder / "config" / "identity").write_bytes(IDENTITY_CONFIG)
    (folder / "tar" / "pax").write_bytes(archive(tarfile.PAX_FORMAT))
    (folder / "tar" / "gnu").write_bytes(archive(tarfile.GNU_FORMAT))
    for name, script in SCRIPTS.items():
        (folder / "conn" / name).write_bytes(script)


main()
