"""A tiny guest for the engine's live tests: one static C program as init, spoken to over the serial console."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

INIT = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

static void show(const char *path, int limit) {
    char text[4096];
    int fd = open(path, O_RDONLY);
    int n = fd < 0 ? 0 : read(fd, text, limit);
    while (n > 0 && text[n - 1] == '\n') n--;
    printf("%s=<%.*s>\n", path, n > 0 ? n : 0, text);
    if (fd >= 0) close(fd);
}

int main(int argc, char **argv) {
    char line[256];
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    int tty = open("/dev/ttyS0", O_RDWR);
    dup2(tty, 0); dup2(tty, 1); dup2(tty, 2);
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int i = 1; i < argc; i++) printf("argument:%s\n", argv[i]);
    printf("READY\n");
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strcmp(line, "reboot")) reboot(RB_AUTOBOOT);
        else if (!strncmp(line, "head ", 5)) show(line + 5, 16);
        else if (!strncmp(line, "cat ", 4)) show(line + 4, 4096);
        else if (line[0]) printf("said:%s\n", line);
    }
    for (;;) pause();
}
"""
BOOT_ARGS = "console=ttyS0 reboot=t panic=-1 quiet"
TIMEOUT_S = 60.0


def need_kernel() -> str:
    """Path of a kernel that finds virtio-mmio devices by its command line."""
    path = os.environ.get("FIRKIN_TEST_KERNEL", "")
    if not path:
        pytest.skip("FIRKIN_TEST_KERNEL names no kernel")
    for program in ("qemu-system-x86_64", "musl-gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return path


def build_initrd(folder: Path) -> Path:
    """An initramfs that holds the init and empty mount points."""
    (folder / "init.c").write_text(INIT)
    subprocess.run(["musl-gcc", "-static", "-Os", "-o", folder / "init", folder / "init.c"], check=True)
    entries = [("dev", 0o40755, b""), ("proc", 0o40755, b""), ("sys", 0o40755, b"")]
    entries.append(("init", 0o100755, (folder / "init").read_bytes()))
    path = folder / "initrd.cpio"
    path.write_bytes(cpio(entries))
    path.chmod(0o600)
    return path


def cpio(entries: Sequence[tuple[str, int, bytes]]) -> bytes:
    """An archive of (name, mode, content)."""
    return b"".join(_cpio(*entry) for entry in [*entries, ("TRAILER!!!", 0, b"")])


def _cpio(name: str, mode: int, data: bytes) -> bytes:
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


class Rig:
    """One folder with what a guest needs, and the config file that names it."""

    def __init__(self, folder: Path, kernel: str, initrd: Path) -> None:
        self.folder = folder
        self.kernel = kernel
        self.initrd = initrd

    def config(self, boot_args: str = BOOT_ARGS, **more: Any) -> Path:
        source = {"kernel_image_path": self.kernel, "initrd_path": str(self.initrd), "boot_args": boot_args}
        path = self.folder / "config.json"
        path.write_text(json.dumps({"boot-source": source, "drives": [], **more}))
        return path

    def disk(self, name: str) -> str:
        path = self.folder / name
        path.write_bytes(f"disk {name}".encode().ljust(4096, b"\0"))
        return str(path)


class Engine:
    """A running firkin-vmm, with the guest's console at hand."""

    def __init__(self, process: subprocess.Popen[bytes], console_in: int, console_out: int) -> None:
        self.process = process
        self._in = console_in
        self._out = console_out
        self.output = b""

    def expect(self, text: str, timeout_s: float = TIMEOUT_S) -> str:
        """Read the console until `text` has come; everything said so far."""
        deadline = time.monotonic() + timeout_s
        while text.encode() not in self.output:
            if not select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} did not come; so far: {self.output.decode(errors='replace')}")
            try:
                data = os.read(self._out, 65536)
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"the console ended before {text!r}: {self.output.decode(errors='replace')}")
            self.output += data
        return self.output.decode(errors="replace")

    def type(self, line: str) -> None:
        os.write(self._in, f"{line}\n".encode())

    def ask(self, line: str, answer: str) -> str:
        self.type(line)
        return self.expect(answer)

    def wait(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def qemu(self) -> int:
        """Process id of its QEMU."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)


@contextmanager
def engine(*args: str | Path, prefix: tuple[str, ...] = (), tty: tuple[int, int] | None = None) -> Iterator[Engine]:
    """Start firkin-vmm on pipes, or on a pty given as (master, slave); kill it in the end."""
    command = [*prefix, sys.executable, "-I", "-m", "firkin.engine", *map(str, args)]
    if tty is None:
        their_in, our_in = os.pipe()
        our_out, their_out = os.pipe()
    else:
        our_in = our_out = os.dup(tty[0])
        their_in = their_out = os.dup(tty[1])
    process = subprocess.Popen(
        command, stdin=their_in, stdout=their_out, stderr=subprocess.PIPE, start_new_session=True
    )
    for fd in {their_in, their_out}:
        os.close(fd)
    try:
        yield Engine(process, our_in, our_out)
    finally:
        process.kill()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()
        for fd in {our_in, our_out}:
            os.close(fd)


class Api:
    """A client that speaks plain HTTP over the unix socket."""

    def __init__(self, path: Path) -> None:
        deadline = time.monotonic() + 10
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        self._socket.settimeout(TIMEOUT_S)

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        self._socket.sendall(head + data)
        reply = b""
        while b"\r\n\r\n" not in reply:
            reply += self._receive()
        top, _, rest = reply.partition(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in top.split(b"\r\n") if b"Content-Length" in line), 0)
        while len(rest) < length:
            rest += self._receive()
        return int(top.split()[1]), json.loads(rest) if rest else None

    def fault(self, method: str, path: str, body: Any = None) -> str:
        status, reply = self.call(method, path, body)
        assert status == 400
        return str(reply["fault_message"])

    def put(self, path: str, **body: Any) -> None:
        answer = self.call("PUT", path, body)
        assert answer == (204, None), answer

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        assert data, "the engine hung up"
        return data


def gone(pid: int, timeout_s: float = 5.0) -> bool:
    """Whether a process is dead, a zombie included, within the time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False
