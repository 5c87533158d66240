"""vsock through the engine: an echo's round trip and a stream each way, beside a unix socket between two processes."""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

import vsock_machine

from firkin.manager.firkin import Firkin
from firkin.settings import load

ECHOES = 1000
SIZE = 256 << 20
BLOCK = bytes(1 << 16)


def echo_ms(stream: socket.socket) -> float:
    """Median round trip of one byte."""
    taken = []
    for _ in range(ECHOES):
        started = time.perf_counter()
        stream.sendall(b"x")
        assert stream.recv(1) == b"x"
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def local_echo_ms() -> float:
    ours, theirs = socket.socketpair()

    def answer() -> None:
        while data := theirs.recv(100):
            theirs.sendall(data)

    thread = threading.Thread(target=answer)
    thread.start()
    with theirs:
        with ours:
            taken = echo_ms(ours)
        thread.join()
    return taken


def to_guest(machine: vsock_machine.Machine) -> float:
    """Bytes a second into a guest that reads and forgets, until it has them all."""
    with machine.command("drain") as stream:
        started = time.perf_counter()
        for _ in range(SIZE // len(BLOCK)):
            stream.sendall(BLOCK)
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(4096):
            pass
        return SIZE / (time.perf_counter() - started)


def from_guest(machine: vsock_machine.Machine) -> float:
    """Bytes a second out of a guest that writes what it has at hand."""
    with machine.command(f"source {SIZE}") as stream:
        started, left = time.perf_counter(), SIZE
        while left:
            left -= len(stream.recv(min(left, 1 << 20)))
        return SIZE / (time.perf_counter() - started)


def main() -> None:
    with Firkin(load(os.environ)) as firkin:
        os.environ["FIRKIN_TEST_KERNEL"] = str(firkin.context.blobs.path(firkin.kernel("build").digest))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)  # QEMU is another user
        with vsock_machine.machine(folder) as machine:
            machine.boot(vsock_machine.build_initrd(folder))
            machine.wait_ready()
            with machine.connect(vsock_machine.ECHO) as stream:
                print(f"echo       {echo_ms(stream):8.3f} ms   unix socket, two threads {local_echo_ms():.3f} ms")
            print(f"to guest   {to_guest(machine) / 1e6:8.0f} MB/s")
            print(f"from guest {from_guest(machine) / 1e6:8.0f} MB/s")


if __name__ == "__main__":
    main()
