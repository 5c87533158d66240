"""In and out of a guest: commands, echoes and streams through the agent, each beside a baseline of the same run.

A guest with a shell and nothing else (busybox), and one with systemd and an SSH server (debian). What is compared is
taken in turn, so that a drift of this host meets both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import vsock
import vsock_machine

from firkin import settings
from firkin.manager.context import Context
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec

EXECS = 500
SSHS = 20
MANY = 1000
PROCESSES = 15
AT_ONCE, ROUNDS = 64, 5
ECHOES = 500
STREAM_BYTES = 128 << 20
STREAMS = 3
TIMEOUT_S = 60.0
FIRKIN = str(Path(sys.executable).parent / "firkin")


def took_ms(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def show(what: str, figure: str, beside: str = "") -> None:
    print(f"{what:46} {figure:>24}   {beside}".rstrip(), flush=True)


def run_true(machine: Machine) -> None:
    assert machine.exec("true", timeout_s=TIMEOUT_S).returncode == 0


def one_by_one(machine: Machine, count: int) -> None:
    for _ in range(count):
        run_true(machine)


def run_here(*argv: str) -> None:
    # By the end of its output: without a pipe Python looks for the end of a process every 50 ms only.
    subprocess.run(argv, check=True, timeout=TIMEOUT_S, stdout=subprocess.PIPE)


def medians(rounds: int, ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Milliseconds of each way, taken in turn; the first of each warms up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, act in ways.items():
            taken[name].append(took_ms(act))
    return {name: times[1:] for name, times in taken.items()}


def round_trip(machine: Machine) -> None:
    """`true` over a held connection."""
    run_true(machine)
    taken = sorted(took_ms(lambda: run_true(machine)) for _ in range(EXECS))
    figure = f"{statistics.median(taken):.2f} ms, p99 {taken[len(taken) * 99 // 100]:.2f}"
    show(f"{machine.name}: exec of `true`, connection held", figure, "goal: median under 5 ms")


def beside_ssh(machine: Machine, folder: Path) -> None:
    """The same against ssh as people use it, and against ssh over a connection that is held too."""
    machine.await_port(22, timeout_s=TIMEOUT_S)
    held = ["-o", f"ControlPath={folder}/ssh"]
    plain = machine.ssh_argv(("true",))
    shared = [*plain[:1], *held, *plain[1:]]
    run_here(*plain[:1], *held, "-o", "ControlMaster=yes", "-f", "-N", *plain[1:-1])
    try:
        ways: dict[str, Callable[[], object]] = {
            "exec": lambda: run_true(machine),
            "ssh": lambda: run_here(*plain),
            "ssh, connection held": lambda: run_here(*shared),
        }
        taken = {name: statistics.median(times) for name, times in medians(SSHS, ways).items()}
    finally:
        run_here(*plain[:1], "-q", *held, "-O", "exit", *plain[1:-1])
    for name in ("ssh", "ssh, connection held"):
        ratio = taken[name] / taken["exec"]
        show(f"{machine.name}: {name}", f"{taken[name]:.1f} ms", f"exec {taken['exec']:.2f} ms, ratio {ratio:.0f}")


def growth(machine: Machine) -> None:
    """A thousand in a row: what they leave behind in this process and in the agent."""
    one_by_one(machine, MANY // 10)
    before = held_by(machine)
    seconds = took_ms(lambda: one_by_one(machine, MANY)) / 1000
    grown = [now - then for then, now in zip(before, held_by(machine), strict=True)]
    figure = f"{grown[0]} KiB, {grown[1]} fds; agent {grown[2]} KiB, {grown[3]} fds"
    show(f"{machine.name}: growth by {MANY} execs in {seconds:.1f} s, ours", figure, "goal: none")


def held_by(machine: Machine) -> tuple[int, int, int, int]:
    """Memory in KiB and descriptors, of this process and of the agent."""
    with machine.agent() as agent:
        pid = agent.hello.pid
    script = f"grep VmRSS: /proc/{pid}/status; ls /proc/{pid}/fd | wc -l"
    words = machine.exec("sh", "-c", script, check=True).text.split()
    ours = Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]
    return int(ours), len(list(Path("/proc/self/fd").iterdir())), int(words[1]), int(words[3])


def as_a_process(machine: Machine) -> None:
    """`firkin exec NAME true` as it is typed, and how much of it Python and our imports are."""
    imports = "import firkin.cli.shell, firkin.manager.machine"
    ways: dict[str, Callable[[], object]] = {
        "exec": lambda: run_here(FIRKIN, "exec", machine.name, "true"),
        "python": lambda: run_here(sys.executable, "-c", "pass"),
        "imports": lambda: run_here(sys.executable, "-c", imports),
    }
    taken = {name: statistics.median(times) for name, times in medians(PROCESSES, ways).items()}
    shares = f"of which python {taken['python']:.0f} ms, imports {taken['imports'] - taken['python']:.0f} ms"
    show("`firkin exec NAME true`", f"{taken['exec']:.0f} ms", f"goal under 150 ms; {shares}")
    before = children_cpu_s()
    for _ in range(PROCESSES):
        run_here(FIRKIN, "exec", machine.name, "true")
    cpu_ms = (children_cpu_s() - before) / PROCESSES * 1000
    show("the same, processor time", f"{cpu_ms:.0f} ms", "what it takes where nothing else runs, without the guest's")


def children_cpu_s() -> float:
    """Processor seconds of the programs that we ran and waited for."""
    times = os.times()
    return times.children_user + times.children_system


def at_once(machine: Machine) -> None:
    """Sixty-four together, beside as many in a row."""
    vcpus = machine.record.spec.vcpus
    ratios, together = [], []
    for _ in range(ROUNDS):
        in_a_row = took_ms(lambda: one_by_one(machine, AT_ONCE))
        together.append(took_ms(lambda: all_at_once(machine)))
        ratios.append(together[-1] / (in_a_row / vcpus))
    figure = f"{statistics.median(together):.0f} ms, ratio {statistics.median(ratios):.2f}"
    show(
        f"{machine.name}: {AT_ONCE} execs at once, {vcpus} vcpus", figure, "to one after another / vcpus; goal under 2"
    )


def all_at_once(machine: Machine) -> None:
    running = [machine.start("true") for _ in range(AT_ONCE)]
    for process in running:
        assert process.wait(TIMEOUT_S).returncode == 0


def echo(machine: Machine) -> None:
    """A byte to a running `cat` and back."""
    with machine.start("cat", stdin=True) as cat:

        def there_and_back() -> None:
            cat.write(b"x", TIMEOUT_S)
            assert cat.read(TIMEOUT_S) == (1, b"x")

        there_and_back()
        taken = [took_ms(there_and_back) for _ in range(ECHOES)]
        cat.close_stdin()
        assert cat.wait(TIMEOUT_S).returncode == 0
    show(f"{machine.name}: a byte to `cat` and back", f"{statistics.median(taken):.2f} ms")


def out_of(machine: Machine) -> float:
    """Bytes a second that a program's output comes out with."""
    began, left = time.perf_counter(), STREAM_BYTES
    with machine.start("dd", "if=/dev/zero", "bs=64k", f"count={STREAM_BYTES >> 16}") as program:
        while (output := program.read(TIMEOUT_S)) is not None:
            left -= len(output.data) if output.fd == 1 else 0
    assert left == 0
    return STREAM_BYTES / (time.perf_counter() - began)


def into(machine: Machine) -> float:
    """Bytes a second that a program takes as input, until it has ended."""
    block = bytes(1 << 20)
    began = time.perf_counter()
    with machine.start("dd", "of=/dev/null", "bs=64k", stdin=True) as program:
        for _ in range(STREAM_BYTES // len(block)):
            program.write(block, TIMEOUT_S)
        program.close_stdin()
        assert program.wait(TIMEOUT_S).returncode == 0
    return STREAM_BYTES / (time.perf_counter() - began)


def streams(machine: Machine, raw: vsock_machine.Machine) -> None:
    """A program's output and input, beside the same bytes over a plain vsock connection of another guest."""
    ways: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "out of": (lambda: out_of(machine), lambda: vsock.from_guest(raw)),
        "into": (lambda: into(machine), lambda: vsock.to_guest(raw)),
    }
    for way, (ours, theirs) in ways.items():
        pairs = [(ours(), theirs()) for _ in range(STREAMS)]
        mine, plain = (statistics.median(column) / 1e6 for column in zip(*pairs, strict=True))
        show(f"{machine.name}: {way} `dd`", f"{mine:.0f} MB/s", f"raw vsock {plain:.0f} MB/s, share {mine / plain:.2f}")


@contextmanager
def raw_guest(kernel: Path) -> Iterator[vsock_machine.Machine]:
    """A guest that answers on vsock and does nothing else; it has the same kernel."""
    os.environ["FIRKIN_TEST_KERNEL"] = str(kernel)
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as place:
        folder = Path(place)
        folder.chmod(0o755)  # QEMU is another user
        with vsock_machine.machine(folder) as guest:
            guest.boot(vsock_machine.build_initrd(folder))
            guest.wait_ready()
            yield guest


@contextmanager
def borrowed_home() -> Iterator[Firkin]:
    """A home of our own with the kernels and images of the one that is set."""
    lender = Context(settings.load())
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as home:
        (Path(home) / "blobs").symlink_to(lender.paths.home / "blobs")
        os.environ |= {"FIRKIN_HOME": home, "FIRKIN_NETWORK_MODE": "own"}  # `firkin exec` is to find it
        with Firkin(settings.load()) as firkin:
            for kernel in lender.kernels.all():
                firkin.context.kernels.put(kernel)
            for image in lender.images.all():
                firkin.context.images.put(image)
            lender.close()
            yield firkin


def busybox(firkin: Firkin) -> None:
    """What the goals are stated for."""
    kernel = firkin.context.blobs.path(firkin.kernel("build").digest).resolve()  # QEMU cannot follow into our home
    with firkin.run(MachineSpec(name="busybox", image="busybox", kernel="build", memory_mib=128)) as machine:
        round_trip(machine)
        growth(machine)
        as_a_process(machine)
        at_once(machine)
        echo(machine)
        with raw_guest(kernel) as raw:
            streams(machine, raw)


def debian(firkin: Firkin) -> None:
    """Where there is an ssh to compare with. The store is this thread's as any other's; ssh needs the namespace."""
    with firkin.run(MachineSpec(name="debian", image="debian", kernel="build", vcpus=2)) as machine:
        round_trip(machine)
        with tempfile.TemporaryDirectory(prefix="firkin-bench-") as folder:
            machine.inside(lambda: beside_ssh(machine, Path(folder)))
        at_once(machine)


def main() -> None:
    with borrowed_home() as firkin:
        busybox(firkin)
        debian(firkin)


if __name__ == "__main__":
    main()
