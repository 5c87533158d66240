"""Forks: from `machine.fork()` to the first exec's result, beside bare QEMU forking a guest of the same files.

Bare QEMU is the engine's command line without confinement, spoken to over QMP by this program. Its guest has a shell on
the console, and answers twice: by an echo of the shell itself, and by the same program that firkin's exec runs. What is
compared is taken in turn, so that a drift of this host meets both. Needs the image busybox and the kernel `build`.
"""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import snapshot
from sdk import borrow
from snapshot import Bare, Files, engine

from firkin.agent.initrd import GuestConfig, build_initrd
from firkin.engine.snapshot import format as state_file
from firkin.fcapi.boot import BootSource
from firkin.fcapi.drives import Drive
from firkin.fcapi.instance import Action, ActionType, Vm, VmState
from firkin.fcapi.snapshot import SnapshotType
from firkin.host.process import descendants
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.manager.snapshot import Snapshot
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime
from firkin.vmm.boot import Call

ROUNDS = int(os.environ.get("ROUNDS", "15"))
MANY = int(os.environ.get("FORKS", "100"))
MEMORY_MIB = 128
POOL = 2
TIMEOUT_S = 60.0
FIRKIN = str(Path(sys.executable).parent / "firkin")
# What the shell answers differs from what it is told: the console echoes that.
ECHO = b"echo a$((6*7))b\n"
EXEC = b"/bin/true && echo a$((6*7))b\n"
ANSWER = b"a42b"


def took_ms(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def show(what: str, figure: str, beside: str = "") -> None:
    print(f"{what:52} {figure:>22}   {beside}".rstrip(), flush=True)


def run_true(machine: Machine) -> None:
    assert machine.exec("true", timeout_s=TIMEOUT_S).returncode == 0


class BareForks:
    """Bare QEMU on a machine with a shell on its console, saved once."""

    def __init__(self, folder: Path, firkin: Firkin) -> None:
        kernel, image = firkin.kernel("build"), firkin.image("busybox")
        root = firkin.context.blobs.path(image.digest)
        files, initrd = Files(folder), folder / "initrd.cpio"
        initrd.write_bytes(build_initrd(GuestConfig(filesystem=image.filesystem, entrypoint=("/bin/sh",))))
        with engine(files) as (client, process):
            source = BootSource(
                kernel_image_path=str(firkin.context.blobs.path(kernel.digest)),
                initrd_path=str(initrd),
                boot_args="console=ttyS0 quiet",
            )
            drive = Drive(drive_id="root", is_root_device=True, is_read_only=True, path_on_host=str(root))
            client.call(Call("PUT", "/boot-source", source))
            client.call(Call("PUT", "/drives/root", drive))
            client.call(Call("PUT", "/actions", Action(action_type=ActionType.INSTANCE_START)))
            assert process.stdin is not None
            assert process.stdout is not None
            # What is written before the shell has opened its console is lost.
            while not answers(process.stdout.fileno(), 0.5):
                os.write(process.stdin.fileno(), EXEC)
            while answers(process.stdout.fileno(), 0.5):
                pass
            client.call(Call("PATCH", "/vm", Vm(state=VmState.PAUSED)))
            snapshot.create(client, files, SnapshotType.FULL)
        self._bare = Bare(files, state_file.read(str(files.state)), root)

    def fork(self, question: bytes) -> float:
        """Milliseconds from the spawn to the answer."""
        began = time.perf_counter()
        process, qmp = self._bare.start()
        self._bare.console.sendall(question)
        assert answers(self._bare.console.fileno(), TIMEOUT_S)
        took = (time.perf_counter() - began) * 1000
        process.kill()
        process.wait()
        qmp.close()
        self._bare.console.close()
        return took


def answers(fd: int, timeout_s: float) -> bool:
    seen = b""
    while ANSWER not in seen and select.select([fd], [], [], timeout_s)[0]:
        data = os.read(fd, 65536)
        assert data, "the guest ended"
        seen += data
    return ANSWER in seen


def fork_and_exec(fork: Callable[[], list[Machine]], timelines: list[dict[str, float]]) -> float:
    """Milliseconds from the call to the exec's result."""
    began = time.perf_counter()
    (child,) = fork()
    run_true(child)
    took = (time.perf_counter() - began) * 1000
    timelines.append({**child.record.timeline, "first exec": took})
    child.remove(force=True)
    return took


def one_by_one(machine: Machine, saved: Snapshot, bare: BareForks) -> None:
    """`machine.fork()` and `snapshot.fork()` to the first exec, each round beside bare QEMU."""
    columns: dict[str, list[float]] = {name: [] for name in ("machine", "snapshot", "echo", "exec")}
    timelines: list[dict[str, float]] = []
    for _ in range(ROUNDS + 1):  # the first warms up
        columns["machine"].append(fork_and_exec(machine.fork, []))
        columns["snapshot"].append(fork_and_exec(saved.fork, timelines))
        columns["echo"].append(bare.fork(ECHO))
        columns["exec"].append(bare.fork(EXEC))
    mid = {name: statistics.median(taken[1:]) for name, taken in columns.items()}
    show("bare QEMU: fork to a shell's echo", f"{mid['echo']:.0f} ms")
    show("bare QEMU: fork to the end of a program", f"{mid['exec']:.0f} ms")
    for name, what in (("machine", "machine.fork()"), ("snapshot", "snapshot.fork()")):
        ratios = ", ".join(f"{ratio(columns[name], columns[base]):.2f} of its {base}" for base in ("echo", "exec"))
        show(f"{what} to the end of a program", f"{mid[name]:.0f} ms", ratios)
    phases(timelines[1:])


def ratio(ours: list[float], bare: list[float]) -> float:
    return statistics.median(mine / theirs for mine, theirs in zip(ours[1:], bare[1:], strict=True))


def phases(timelines: Sequence[dict[str, float]]) -> None:
    """Where the milliseconds of `snapshot.fork()` go: medians of when each phase ended, and of how long it took."""
    before = 0.0
    for phase in timelines[0]:
        ended = statistics.median(timeline[phase] for timeline in timelines)
        show(f"  {phase}", f"{ended - before:.1f} ms", f"at {ended:.1f}")
        before = ended


def many(saved: Snapshot) -> None:
    """Many at once: how long it takes, that each works, and the memory that each takes while it idles."""
    available = available_mib()
    began = time.perf_counter()
    forks = saved.fork(MANY)
    took_s = time.perf_counter() - began
    time.sleep(2)
    memory = [memory_of(fork) for fork in forks]
    taken_mib = (available - available_mib()) / MANY
    execs = [took_ms(lambda fork=fork: run_true(fork)) for fork in forks]  # type: ignore[misc]
    show(f"{MANY} forks", f"{took_s:.1f} s", "goal: 100 in under 6 s")
    parts = ", ".join(f"{part} {statistics.median(each[part] for each in memory):.1f}" for part in memory[0])
    total = statistics.median(sum(each.values()) for each in memory)
    show("  unique memory of an idle fork", f"{total:.1f} MiB", f"{parts}; goal: 20")
    show("  less available memory, for each", f"{taken_mib:.1f} MiB")
    show("  first exec in each, one after the other", f"{statistics.median(execs):.0f} ms")
    for fork in forks:
        fork.remove(force=True)


def memory_of(machine: Machine) -> dict[str, float]:
    """MiB that would come back if this fork ended, by process."""
    process = machine.record.process
    assert process is not None
    (qemu,) = descendants(process)
    return {"engine": private_mib(process.pid), "QEMU": private_mib(qemu.pid)}


def private_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def available_mib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1024


def claims(firkin: Firkin, saved: Snapshot) -> None:
    """A machine out of a pool that is full, to the first exec."""
    taken = []
    with firkin.create_pool("bench", saved, size=POOL) as pool:
        for _ in range(ROUNDS):
            assert wait_until(lambda: pool.ready >= POOL and not pool.filling, timeout_s=TIMEOUT_S)
            began = time.perf_counter()
            machine = pool.claim()
            run_true(machine)
            taken.append((time.perf_counter() - began) * 1000)
            machine.remove(force=True)
    show("pool.claim() to the end of a program", f"{statistics.median(taken):.0f} ms", "goal: under 25 ms")


def whole_command(home: Path) -> None:
    """`firkin run --rm busybox true` as a process of its own: booted, and from the template that the parent left."""
    environment = {**os.environ, "FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build"}
    argv = [FIRKIN, "run", "--rm", "--memory", str(MEMORY_MIB), "busybox", "true"]

    def run(**more: str) -> None:
        # By the end of its output: without a pipe Python looks for the end of a process every 50 ms only.
        subprocess.run(argv, env=environment | more, check=True, timeout=TIMEOUT_S, stdout=subprocess.PIPE)

    cold = statistics.median([took_ms(lambda: run(FIRKIN_COLD="1")) for _ in range(ROUNDS)])
    warm = statistics.median([took_ms(run) for _ in range(ROUNDS + 1)][1:])
    show("firkin run --rm busybox true, booted", f"{cold:.0f} ms")
    show("firkin run --rm busybox true, from the template", f"{warm:.0f} ms", "goal: under 250 ms")


@contextmanager
def parent(firkin: Firkin) -> Iterator[Machine]:
    """A machine that has run a program and settled."""
    spec = MachineSpec(name="parent", image="busybox", memory_mib=MEMORY_MIB)
    with firkin.run(spec, lifetime=Lifetime.SESSION) as machine:
        for _ in range(3):
            run_true(machine)
        assert wait_until(lambda: took_ms(lambda: run_true(machine)) < 100, timeout_s=TIMEOUT_S)
        yield machine


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as name:
        home, folder = Path(name, "home"), Path(name, "bare")
        home.mkdir()
        folder.mkdir()
        with Firkin(borrow(home)) as firkin:
            bare = BareForks(folder, firkin)
            with parent(firkin) as machine, machine.snapshot() as saved:
                one_by_one(machine, saved, bare)
                claims(firkin, saved)
                many(saved)
        whole_command(home)


if __name__ == "__main__":
    main()
