"""The engine beside its guest: time to serve, time of a call, memory and processor time when idle; with baselines."""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from firkin import settings
from firkin.agent.cpio import CpioEntry, write_cpio
from firkin.manager.context import Context

STARTS, CALLS = 15, 2000
IDLE_S = float(os.environ.get("IDLE_S", "20"))
VMM = [str(Path(sys.executable).with_name("firkin-vmm"))]
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
READY = b"API server started."
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@contextmanager
def engine(folder: Path, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A running engine, and how many milliseconds it took to say that it serves."""
    path = folder / "api.sock"
    path.unlink(missing_ok=True)
    began = time.perf_counter()
    command = [*VMM, "--api-sock", str(path), *args]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        said = b""
        while READY not in said and (data := os.read(process.stdout.fileno(), 65536)):
            said += data
        yield process, (time.perf_counter() - began) * 1000
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def interpreter_ms() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1000


def call_us(path: Path) -> float:
    """Median of GET / over one connection that is kept."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        if b'"state":"Not started"' not in (answer := exchange(client)):
            sys.exit(answer.decode())
        return median_us(lambda: exchange(client))


def exchange(client: socket.socket) -> bytes:
    client.sendall(GET)
    return client.recv(65536)


def echo_us() -> float:
    """The baseline: the same bytes to a process that sends them back."""
    near, far = socket.socketpair()
    if (child := os.fork()) == 0:
        while data := far.recv(65536):
            far.sendall(data)
        os._exit(0)
    far.close()
    try:
        return median_us(lambda: exchange(near))
    finally:
        near.close()
        os.kill(child, 9)
        os.waitpid(child, 0)


def median_us(act: Callable[[], bytes]) -> float:
    samples = []
    for _ in range(CALLS):
        began = time.perf_counter()
        act()
        samples.append((time.perf_counter() - began) * 1e6)
    return statistics.median(samples)


def put(path: Path, **bodies: dict[str, str]) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        for name, body in bodies.items():
            text = json.dumps(body)
            head = f"PUT /{name.replace('_', '-')} HTTP/1.1\r\nContent-Length: {len(text)}\r\n\r\n"
            client.sendall((head + text).encode())
            answer = client.recv(65536)
            if b" 204 " not in answer:
                sys.exit(answer.decode())


def idle_initrd(folder: Path) -> Path:
    """An init that does nothing for ever."""
    source, init, path = folder / "init.c", folder / "init", folder / "initrd.cpio"
    source.write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    subprocess.run(["musl-gcc", "-static", "-Os", "-o", init, source], check=True)
    path.write_bytes(write_cpio([CpioEntry("init", 0o100755, init.read_bytes())]))
    return path


def pss_mib(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def idle(folder: Path, kernel: str) -> None:
    with engine(folder) as (process, _):
        source = {"kernel_image_path": kernel, "initrd_path": str(idle_initrd(folder)), "boot_args": "quiet"}
        put(folder / "api.sock", boot_source=source, actions={"action_type": "InstanceStart"})
        (qemu,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        time.sleep(3)  # until it has booted
        pids = (process.pid, qemu)
        before = [cpu_s(pid) for pid in pids]
        time.sleep(IDLE_S)
        for name, pid, spent in zip(("engine", "QEMU"), pids, before, strict=True):
            share = (cpu_s(pid) - spent) / IDLE_S * 100
            print(f"idle {name:7} PSS {pss_mib(pid):7.1f} MiB   CPU {share:5.2f}% of a processor")


def main() -> None:
    with closing(Context(settings.load())) as context, tempfile.TemporaryDirectory(prefix="firkin-bench-") as name:
        folder = Path(name)
        starts, bare = [], []
        for _ in range(STARTS + 1):
            with engine(folder) as (_, took_ms):
                starts.append(took_ms)
            bare.append(interpreter_ms())
        ours, theirs = statistics.median(starts[1:]), statistics.median(bare[1:])  # the first one warms up
        print(f"process start to `API server started`: {ours:6.1f} ms   the interpreter alone: {theirs:6.1f} ms")
        with engine(folder):
            put(folder / "api.sock", logger={"log_path": str(folder / "log")})  # nobody reads the pipe any more
            print(f"GET /: {call_us(folder / 'api.sock'):6.0f} us   an echo of the bytes: {echo_us():6.0f} us")
        record = context.kernels.get("build")
        if record is None:
            sys.exit("no kernel `build`: firkin kernel build")
        idle(folder, str(context.blobs.path(record.digest)))


if __name__ == "__main__":
    main()
