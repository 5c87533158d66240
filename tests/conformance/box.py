"""A VMM as a black box: a program with a command line, a socket and files. Knows nothing of how it is made."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

BINARY = os.environ.get("FIRKIN_CONFORMANCE_BINARY", "")
COMMAND = [BINARY] if BINARY else [sys.executable, "-I", "-m", "firkin.engine"]
IS_FIRECRACKER = bool(BINARY) and "firkin" not in Path(BINARY).name
TIMEOUT_S = 30.0


class Ended(NamedTuple):
    """A process that has ended by itself."""

    code: int
    stdout: str
    stderr: str


class Reply(NamedTuple):
    """One answer, as it came."""

    head: str
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fault(self) -> str:
        return str(self.json["fault_message"])


def run(*args: str | Path, cwd: Path | None = None) -> Ended:
    """Run to the end."""
    command = [*COMMAND, *map(str, args)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd)
    return Ended(done.returncode, done.stdout, done.stderr)


class Box:
    """A running VMM with its API."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.connection = connect(folder / "api.sock", process)

    def raw(self, data: bytes) -> Reply:
        self.connection.sendall(data)
        return receive(self.connection)

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """`body` is JSON, or bytes as they are."""
        return self.raw(request(method, path, body))

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(TIMEOUT_S)


@contextmanager
def box(folder: Path, *args: str | Path) -> Iterator[Box]:
    """Start the VMM in `folder`, its console in `folder`/console; kill it in the end."""
    command = [*COMMAND, "--api-sock", str(folder / "api.sock"), *map(str, args)]
    log = [] if "--log-path" in args else ["--log-path", str(folder / "log"), "--level", "Debug"]
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen([*command, *log], stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    opened = None
    try:
        opened = Box(process, folder)
        yield opened
    finally:
        if opened is not None:
            opened.connection.close()
        process.kill()
        process.wait(TIMEOUT_S)


def connect(path: Path, process: subprocess.Popen[bytes] | None = None) -> socket.socket:
    deadline = time.monotonic() + TIMEOUT_S
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(TIMEOUT_S)
    while True:
        try:
            client.connect(str(path))
        except OSError:
            if time.monotonic() > deadline or (process is not None and process.poll() is not None):
                client.close()
                raise
            time.sleep(0.005)
        else:
            return client


def request(method: str, path: str, body: Any = None, headers: str = "") -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    length = f"Content-Length: {len(data)}\r\n" if body is not None else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n".encode() + data


def receive(client: socket.socket) -> Reply:
    """One whole reply."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(client)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
    while len(body) < length:
        body += _some(client)
    return Reply(head.decode(), body)


def _some(client: socket.socket) -> bytes:
    data = client.recv(1)  # no more than one reply, should more have come
    assert data, "the VMM hung up"
    return data
