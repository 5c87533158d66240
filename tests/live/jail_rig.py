"""Jails for live tests: a short base folder of their own, files put in as a client would, all gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine_rig import BOOT_ARGS, TIMEOUT_S, Api, Engine, gone

from firkin.host.wait import wait_until

SCRIPTS = Path(sys.executable).parent
JAILER, VMM = SCRIPTS / "firkin-jailer", SCRIPTS / "firkin-vmm"
UID, GID = 71001, 71002


def run_jailer(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """To its end, which is soon: for refusals and programs that only look around."""
    return subprocess.run(
        [JAILER, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )


class Jail:
    """One jail, by its id in a base folder."""

    def __init__(self, base: Path, name: str = "one", exec_file: Path = VMM) -> None:
        self.base = base
        self.name = name
        self.exec_file = exec_file
        self.root = base / exec_file.name / name / "root"

    def args(self, *flags: str, program: tuple[str, ...] = (), uid: int = UID, gid: int = GID) -> list[str]:
        own = ["--id", self.name, "--exec-file", str(self.exec_file), "--uid", str(uid), "--gid", str(gid)]
        return [*own, "--chroot-base-dir", str(self.base), *flags, "--", *program]

    def put(self, source: str | Path, name: str) -> str:
        """Copy a file in, readable by the jail's user; its path as the engine sees it."""
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self.root / name)
        os.chown(self.root / name, UID, GID)
        return f"/{name}"

    @property
    def socket(self) -> Path:
        return self.root / "run" / "firecracker.socket"

    @property
    def pid(self) -> int:
        path = self.root / f"{self.exec_file.name}.pid"
        assert wait_until(lambda: path.exists() and path.read_text() != "", timeout_s=10)
        return int(path.read_text())


@contextmanager
def base_folder() -> Iterator[Path]:
    """Short, since sockets are below it; whoever is still jailed there in the end is killed."""
    path = Path(tempfile.mkdtemp(prefix="fkj", dir="/tmp"))
    try:
        yield path
    finally:
        for file in path.glob("*/*/root/*.pid"):
            _kill(int(file.read_text() or 0), path)
        shutil.rmtree(path)


def _kill(pid: int, base: Path) -> None:
    """Only if it still is the one: its working folder is a jail of ours."""
    try:
        cwd = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return
    if pid and cwd == Path("/") and Path(f"/proc/{pid}/cmdline").read_bytes().count(b"\0--id\0"):
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)


@contextmanager
def jailed(
    jail: Jail,
    *flags: str,
    program: tuple[str, ...] = (),
    uid: int = UID,
    prefix: tuple[str, ...] = (),
    umask: int = -1,
) -> Iterator[Engine]:
    """Start the jailer with the guest's console on pipes; it becomes the engine, or leaves one behind."""
    their_in, our_in = os.pipe()
    our_out, their_out = os.pipe()
    command = [*prefix, str(JAILER), *jail.args(*flags, program=program, uid=uid)]
    process = subprocess.Popen(
        command, stdin=their_in, stdout=their_out, stderr=subprocess.PIPE, start_new_session=True, umask=umask
    )
    os.close(their_in)
    os.close(their_out)
    try:
        yield Engine(process, our_in, our_out)
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
        assert process.stderr is not None
        process.stderr.close()
        os.close(our_in)
        os.close(our_out)


def boot(jail: Jail, kernel: str, initrd: str, **resources: dict[str, Any]) -> Api:
    """Configure with paths of the jail and start; the client stays connected."""
    api = Api(jail.socket)
    api.put("/boot-source", kernel_image_path=kernel, initrd_path=initrd, boot_args=BOOT_ARGS)
    for path, body in resources.items():
        api.put(path, **body)
    api.put("/actions", action_type="InstanceStart")
    return api


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def limits(pid: int) -> dict[str, list[str]]:
    """Soft and hard limit by name; reading another's by prlimit(2) takes a capability that root may lack."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}
