"""The agent, built to run and be checked on this host, and how to reach it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from firkin.agent.client import AgentConnection
from firkin.agent.messages import Hello
from firkin.host.unix import connect_unix, listen_unix
from firkin.host.wait import wait_until

GUEST = Path(__file__).parents[2] / "guest"
STRICT = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}


def build_native(build: Path) -> Path:
    """Fill a folder with the guest's programs, with address and undefined-behaviour checks."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    subprocess.run(["make", "-C", GUEST, "native", f"BUILD={build}"], check=True, stdout=subprocess.DEVNULL)
    return build


@dataclass
class Agent:
    """A running agent and how to reach it."""

    process: subprocess.Popen[bytes]
    path: Path

    def connect(self) -> AgentConnection:
        return AgentConnection(connect_unix(self.path, 10.0))

    def dial(self) -> socket.socket:
        sock = connect_unix(self.path, 10.0)
        sock.sendall(Hello().encode())
        return sock

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def children(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()


@contextmanager
def serve(native: Path, path: Path) -> Iterator[Agent]:
    """An agent; afterwards it must have left no child, no descriptor, no leak and no complaint of the checkers."""
    with listen_unix(path, backlog=64) as listener:
        process = subprocess.Popen(
            [native / "firkin-init-native", "--agent-fd", str(listener.fileno())],
            pass_fds=[listener.fileno()], stderr=subprocess.PIPE, env={**os.environ, **STRICT},
        )  # fmt: skip
    running = Agent(process, path)
    try:
        with running.connect() as first:
            assert first.run("true").returncode == 0
        assert wait_until(lambda: running.descriptors() == 6, timeout_s=5)
        yield running
        if process.poll() is None:
            assert wait_until(lambda: running.descriptors() == 6, timeout_s=5), "descriptors are left"
            assert wait_until(lambda: not running.children(), timeout_s=5), "children are left"
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        _, complaints = process.communicate()
    assert complaints == b""
