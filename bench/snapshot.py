"""Snapshots: create, and load + resume, as the engine's client sees them, beside bare QEMU taking the same steps.

Bare QEMU is the engine's command line without confinement, spoken to over QMP by this program: its device state into
memory, guest memory sparsely into a file, both on disk; and a new QEMU on that memory, mapped privately, until it runs.
"""

from __future__ import annotations

import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from firkin import settings
from firkin.agent.initrd import GuestConfig, build_initrd
from firkin.engine.qemu_argv import Guest, qemu_argv
from firkin.engine.qemu_disks import Disk
from firkin.engine.qmp import Qmp
from firkin.engine.snapshot import device_state
from firkin.engine.snapshot import format as state_file
from firkin.engine.snapshot.saved import SavedMachine
from firkin.fcapi.boot import BootSource
from firkin.fcapi.drives import Drive
from firkin.fcapi.instance import Action, ActionType, Vm, VmState
from firkin.fcapi.snapshot import MemBackend, MemBackendType, SnapshotCreate, SnapshotLoad, SnapshotType
from firkin.host import sparse
from firkin.host.unix import connect_unix
from firkin.host.wait import wait_until
from firkin.manager.context import Context
from firkin.vmm.boot import Call
from firkin.vmm.client import ApiClient

ROUNDS = int(os.environ.get("ROUNDS", "15"))
MEMORY_MIB = 128
FORKS = 10
READY = b"agent ready"
TIMEOUT_S = 30.0
MIB = 1 << 20


class Files:
    """Where everything lies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state, self.memory = folder / "state", folder / "memory"


@contextmanager
def engine(files: Files) -> Iterator[tuple[ApiClient, subprocess.Popen[bytes]]]:
    """firkin-vmm, settled: its own start is not what is measured here."""
    path = files.folder / "api.socket"
    path.unlink(missing_ok=True)
    argv = [sys.executable, "-I", "-m", "firkin.engine", "--api-sock", str(path), "--level", "Error"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: listens(path), timeout_s=TIMEOUT_S)
            with ApiClient(path) as client:
                client.call(Call("GET", "/", None))
                yield client, process
        finally:
            process.kill()


def listens(path: Path) -> bool:
    try:
        connect_unix(path, TIMEOUT_S).close()
    except OSError:
        return False
    return True


def boot(client: ApiClient, process: subprocess.Popen[bytes], kernel: Path, initrd: Path, image: Path) -> None:
    client.call(
        Call(
            "PUT",
            "/boot-source",
            BootSource(kernel_image_path=str(kernel), initrd_path=str(initrd), boot_args="console=ttyS0 quiet"),
        )
    )
    drive = Drive(drive_id="root", is_root_device=True, is_read_only=True, path_on_host=str(image))
    client.call(Call("PUT", "/drives/root", drive))
    client.call(Call("PUT", "/actions", Action(action_type=ActionType.INSTANCE_START)))
    assert process.stdout is not None
    seen, deadline = b"", time.monotonic() + TIMEOUT_S
    while READY not in seen:
        if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            sys.exit(f"the guest did not boot: {seen[-300:]!r}")
        seen += os.read(process.stdout.fileno(), 65536)


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def create(client: ApiClient, files: Files, kind: SnapshotType) -> float:
    body = SnapshotCreate(snapshot_type=kind, snapshot_path=str(files.state), mem_file_path=str(files.memory))
    return timed(lambda: client.call(Call("PUT", "/snapshot/create", body)))


def load(files: Files) -> tuple[float, float]:
    """Milliseconds of load + resume in a fresh engine, and of a diff of what then ran."""
    with engine(files) as (client, _):
        took = timed(lambda: client.call(load_call(files)))
        time.sleep(0.1)
        client.call(Call("PATCH", "/vm", Vm(state=VmState.PAUSED)))
        other = Files(files.folder)
        other.state, other.memory = files.folder / "diff.state", files.folder / "diff.memory"
        other.memory.unlink(missing_ok=True)
        return took, create(client, other, SnapshotType.DIFF)


def load_call(files: Files) -> Call:
    backend = MemBackend(backend_type=MemBackendType.FILE, backend_path=str(files.memory))
    body = SnapshotLoad(snapshot_path=str(files.state), mem_backend=backend, resume_vm=True)
    return Call("PUT", "/snapshot/load", body)


def density(files: Files) -> tuple[float, float]:
    """MiB of memory that each of many forks of one file takes, shared pages by share: its engine and its QEMU."""
    with ExitStack() as forks:
        pids = []
        for _ in range(FORKS):
            client, process = forks.enter_context(engine(files))
            client.call(load_call(files))
            pids.append(process.pid)
        time.sleep(1)
        qemus = [int(Path(f"/proc/{pid}/task/{pid}/children").read_text()) for pid in pids]
        return statistics.median(map(pss_mib, pids)), statistics.median(map(pss_mib, qemus))


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


class Bare:
    """QEMU alone on the saved machine."""

    def __init__(self, files: Files, saved: SavedMachine, image: Path) -> None:
        self.files, self.saved = files, saved
        self._memory = os.open(files.memory, os.O_RDONLY)
        self._image = os.open(image, os.O_RDONLY)

    def start(self) -> tuple[subprocess.Popen[bytes], Qmp]:
        """Spawn, load, run."""
        ours, theirs = socket.socketpair()
        console, their_console = socket.socketpair()
        guest = Guest(
            name="bare",
            acpi=self.saved.acpi,
            disks=(Disk(fd=self._image, read_only=True),),
            monitor_fd=theirs.fileno(),
            console_fd=their_console.fileno(),
            memory_fd=self._memory,
            memory_shared=False,
            sandbox=False,
        )
        fds = (theirs.fileno(), their_console.fileno(), self._memory, self._image)
        process = subprocess.Popen(qemu_argv(guest), pass_fds=fds)
        for end in (theirs, their_console):
            end.close()
        self.console = console
        qmp = Qmp(ours, lambda _event: None)
        qmp.negotiate()
        device_state.load(qmp, self.saved.devices)
        qmp.execute("cont")
        return process, qmp

    def save(self, qmp: Qmp) -> None:
        """Device state and memory, the latter from the file: as many bytes as the engine writes."""
        names = [self.files.folder / "bare.state", self.files.folder / "bare.memory"]
        state, memory = (os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for name in names)
        os.write(state, device_state.save(qmp))
        os.ftruncate(memory, self.saved.memory_size)
        sparse.copy(self._memory, memory, sparse.data_extents(self._memory, self.saved.memory_size))
        for fd in (state, memory):
            os.fsync(fd)
            os.close(fd)

    def measure(self) -> tuple[float, float]:
        """Milliseconds of load + resume, and of a save."""
        began = time.perf_counter()
        process, qmp = self.start()
        loaded = (time.perf_counter() - began) * 1000
        qmp.execute("stop")
        saved = timed(lambda: self.save(qmp))
        process.kill()
        process.wait()
        qmp.close()
        self.console.close()
        return loaded, saved


def show(what: str, ours: list[float], bare: list[float] | None = None) -> None:
    line = f"snapshot, {what:42} firkin {statistics.median(ours):6.1f} ms"
    if bare is not None:
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
        line += f"   bare QEMU {statistics.median(bare):6.1f} ms   ratio {ratio:.2f}"
    print(line)


def main() -> None:
    context = Context(settings.load())
    record: Any = context.kernels.get("build")
    image_record: Any = context.images.get("busybox") or context.images.all()[0]
    kernel, image = context.blobs.path(record.digest), context.blobs.path(image_record.digest)
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as name:
        files = Files(Path(name))
        initrd = files.folder / "initrd.cpio"
        initrd.write_bytes(
            build_initrd(GuestConfig(filesystem=image_record.filesystem, entrypoint=("/bin/sleep", "1000")))
        )
        with engine(files) as (client, process):
            boot(client, process, kernel, initrd, image)
            client.call(Call("PATCH", "/vm", Vm(state=VmState.PAUSED)))
            full = [create(client, files, SnapshotType.FULL) for _ in range(ROUNDS)]
        used = files.memory.stat().st_blocks * 512 / MIB
        bare = Bare(files, state_file.read(str(files.state)), image)
        rounds = [(*load(files), *bare.measure()) for _ in range(ROUNDS)]
        loads, diffs, bare_loads, bare_saves = (list(column) for column in zip(*rounds, strict=True))
        print(f"guest of {MEMORY_MIB} MiB with {used:.0f} MiB in use, median of {ROUNDS}")
        show("create, full", full, bare_saves)
        show("load + resume", loads, bare_loads)
        show("create, diff of a fork", diffs)
        ours, theirs = density(files)
        print(f"snapshot, memory of each of {FORKS} forks: engine {ours:.1f} MiB, QEMU {theirs:.1f} MiB (PSS)")
    context.close()


if __name__ == "__main__":
    main()
