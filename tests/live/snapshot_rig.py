"""A guest that can be saved and restored: engines with an API socket, and the calls around snapshots."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine_rig import BOOT_ARGS, Api, Engine, engine

from firkin.agent.cpio import CpioEntry, write_cpio

SOURCE = Path(__file__).with_name("snapshot_guest.c")
ECHO_PORT, UDP_PORT = 1001, 7
TIMEOUT_S = 20.0
_PATHS = {"mmds_config": "mmds/config"}
_HEADERS = ("-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu")


def build_initrd(folder: Path) -> Path:
    """Compile the guest and pack it as the init of an initramfs."""
    init = folder / "init"
    subprocess.run(["musl-gcc", "-static", "-Os", "-D_GNU_SOURCE", *_HEADERS, "-o", init, SOURCE], check=True)
    folders = [CpioEntry(name, 0o40755) for name in ("dev", "proc")]
    path = folder / "initrd.cpio"
    path.write_bytes(write_cpio([*folders, CpioEntry("init", 0o100755, init.read_bytes())]))
    return path


class Snapshot:
    """Two files."""

    def __init__(self, folder: Path, name: str = "snapshot") -> None:
        self.state = folder / f"{name}.state"
        self.memory = folder / f"{name}.memory"

    def create(self, api: Api, kind: str = "Full") -> None:
        """Pause and store."""
        api.call("PATCH", "/vm", {"state": "Paused"})
        api.put("/snapshot/create", snapshot_type=kind, snapshot_path=str(self.state), mem_file_path=str(self.memory))

    def body(self, **more: Any) -> dict[str, Any]:
        backend = {"backend_type": "File", "backend_path": str(self.memory)}
        return {"snapshot_path": str(self.state), "mem_backend": backend, "resume_vm": True, **more}


class Vm:
    """One engine: its process and guest's console, and its API."""

    def __init__(self, engine: Engine, api: Api) -> None:
        self.engine = engine
        self.api = api

    def ask(self, command: str) -> str:
        """What the guest answers to a command: the part after the `=`."""
        self.engine.output = b""
        answer = {"write": "disk", "read": "disk", "fill": "filled"}.get(command.split(maxsplit=1)[0], command)
        text = self.engine.ask(command, ".\r\n")
        found = re.search(rf"{answer}=(.*)\.\r\n", text)
        assert found, text
        return found[1]

    def load(self, snapshot: Snapshot, **more: Any) -> None:
        status, reply = self.api.call("PUT", "/snapshot/load", snapshot.body(**more))
        assert status == 204, reply

    def qemu(self) -> int:
        return self.engine.qemu()


@contextmanager
def vm(folder: Path, name: str = "api", prefix: tuple[str, ...] = ()) -> Iterator[Vm]:
    """An engine that waits for calls."""
    path = folder / f"{name}.socket"
    with suppress(FileNotFoundError):
        path.unlink()
    with engine("--api-sock", path, "--id", name, prefix=prefix) as started:
        api = Api(path)
        try:
            yield Vm(started, api)
        finally:
            api.close()


def boot(machine: Vm, kernel: str, initrd: Path, *, address: str = "", **devices: Any) -> None:
    """Configure by PUTs, a path each, and start."""
    arguments = f"{BOOT_ARGS} -- {address}" if address else BOOT_ARGS
    machine.api.put("/boot-source", kernel_image_path=kernel, initrd_path=str(initrd), boot_args=arguments)
    for path, body in devices.items():
        machine.api.put("/" + _PATHS.get(path, path.replace("_", "-").replace("-id-", "/")), **body)
    machine.api.put("/actions", action_type="InstanceStart")
    machine.engine.expect("READY")


def vsock_echo(uds: Path, message: bytes) -> bytes:
    """Send a message to the guest's vsock echo and return what comes back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(uds))
        connection.sendall(b"CONNECT %d\n" % ECHO_PORT)
        with connection.makefile("rb") as reader:
            assert reader.readline().startswith(b"OK ")
            connection.sendall(message)
            return reader.read(len(message))


def allocated(path: Path) -> int:
    """Bytes that a sparse file takes on disk."""
    return path.stat().st_blocks * 512
