"""Engines forked from the zygote beside engines started by themselves: time until the API answers, and memory.

FIRKIN_HOME names a home with a kernel and the image busybox; the engines that are timed have no guest.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firkin import settings
from firkin.host.process import ProcessRef
from firkin.host.unix import connect_unix
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.spec import MachineSpec
from firkin.vmm import backend
from firkin.vmm.console import Console
from firkin.vmm.process import Station, end, open_api, spawn
from firkin.vmm.zygote import Zygote

ROUNDS = 25
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Yard:
    """A folder with a zygote and engines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.zygote = Zygote(folder / "zygotes", 60)
        self.names: list[str] = []

    def engine(self, *, warm: bool) -> tuple[ProcessRef, float]:
        """An engine whose API has answered, and how many milliseconds that took."""
        name = secrets.token_hex(6)
        self.names.append(name)
        run = self.folder / name
        run.mkdir()
        console, log = Console(machine_id=name, run=run, home=run, limit=2**20), run / "engine.log"
        zygote = self.zygote if warm else None
        station = Station(netns=None, run=run, console=console, engine_log=log, zygote=zygote)
        began = time.perf_counter()
        ref = spawn(backend.argv("firkin-vmm", name, log), station)
        with open_api(ref, station), connect_unix(run / "api.sock", 10) as client:
            ask(client)
            return ref, (time.perf_counter() - began) * 1000

    def end_engines(self) -> None:
        for name in self.names:
            end(name)
        self.names.clear()


def ask(client: socket.socket) -> None:
    client.sendall(GET)
    assert b"Not started" in client.recv(65536)


@contextmanager
def yard() -> Iterator[Yard]:
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as folder:
        found = Yard(Path(folder))
        try:
            found.zygote.start(backend.environment(os.environ))
            assert wait_until(found.zygote.socket.exists, timeout_s=20)
            yield found
        finally:
            found.end_engines()
            found.zygote.end()


def memory(ref: ProcessRef) -> dict[str, float]:
    """PSS and what is this process's alone, in MiB."""
    rollup = Path(f"/proc/{ref.pid}/smaps_rollup").read_text()
    size = {name: int(kib) / 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", rollup, re.MULTILINE)}
    return {"PSS": size["Pss"], "unique": size["Private_Dirty"] + size["Private_Clean"]}


def times(found: Yard) -> None:
    samples: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for warm, taken in samples.items():
            taken.append(found.engine(warm=warm)[1])
            found.end_engines()
    for warm, taken in samples.items():
        how = "forked from the zygote" if warm else "started by itself"
        print(f"spawn to API's answer, {how:22}: median {statistics.median(taken):6.1f} ms   best {min(taken):6.1f} ms")


def show_memory(what: str, refs: list[ProcessRef]) -> None:
    each = [memory(ref) for ref in refs]
    pss, unique = (statistics.mean(sizes[name] for sizes in each) for name in ("PSS", "unique"))
    print(f"memory of {what:36}: PSS {pss:5.1f} MiB   unique {unique:5.1f} MiB")


def idle_engines(found: Yard) -> None:
    for warm, how in ((True, "forked"), (False, "started")):
        show_memory(f"one of 10 engines, {how}", [found.engine(warm=warm)[0] for _ in range(10)])
        found.end_engines()


def engines_with_guests() -> None:
    spec = MachineSpec(image="busybox", memory_mib=128)
    with Firkin(settings.load()) as firkin:
        zygote = firkin.context.zygote
        assert zygote is not None
        zygote.start(backend.environment(os.environ))
        assert wait_until(zygote.socket.exists, timeout_s=20)
        machines = [firkin.run(spec) for _ in range(3)]
        try:
            for machine in machines:
                machine.exec("true")
            show_memory("one of 3 engines with guests, forked", [machine.process() for machine in machines])
        finally:
            for machine in machines:
                machine.remove(force=True)
            zygote.end()


def main() -> None:
    with yard() as found:
        times(found)
        idle_engines(found)
    engines_with_guests()


if __name__ == "__main__":
    main()
