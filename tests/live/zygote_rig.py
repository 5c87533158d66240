"""Engines without guests, from a zygote or by themselves, and what /proc says of them."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from firkin.host.process import ProcessRef, all_pids, with_argument
from firkin.host.unix import connect_unix, short_name
from firkin.host.wait import wait_until
from firkin.vmm import backend
from firkin.vmm.console import Console
from firkin.vmm.process import Station, end, open_api, spawn
from firkin.vmm.zygote import Zygote

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
# A directory entry apart from each process's own: how it came to be, and what it did since.
STATUS = (
    "Name", "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd",
    "CapAmb", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Threads", "CoreDumping",
)  # fmt: skip


class Yard:
    """A folder for engines and their zygote."""

    def __init__(self, folder: Path, *, idle_s: int = 30, tag: str | None = None) -> None:
        self.folder = folder
        self.tag = tag or os.urandom(4).hex()
        self.zygote = Zygote(folder / "zygotes", idle_s)
        self.count = 0

    def __enter__(self) -> Yard:
        return self

    def __exit__(self, *_error: object) -> None:
        for number in range(self.count):
            end(self.name(number))
        self.zygote.end()

    def name(self, number: int) -> str:
        return f"{self.tag}-{number}"

    def station(self, *, netns: str | None = None, warm: bool = True) -> tuple[str, Station]:
        name = self.name(self.count)
        self.count += 1
        run = self.folder / name
        run.mkdir()
        console = Console(machine_id=name, run=run, home=run, limit=2**20)
        log = run / "engine.log"
        return name, Station(
            netns=netns, run=run, console=console, engine_log=log, zygote=self.zygote if warm else None
        )

    def spawn(self, *, netns: str | None = None, warm: bool = True) -> ProcessRef:
        """An engine that answers."""
        return self.spawn_at(*self.station(netns=netns, warm=warm))

    def spawn_at(self, name: str, station: Station) -> ProcessRef:
        ref = spawn(backend.argv("firkin-vmm", name, station.engine_log), station)
        with open_api(ref, station):
            pass
        assert answers(station.run)
        assert with_argument("--id", name) == [ref]
        return ref

    def warm(self) -> ProcessRef:
        """The zygote, once it serves."""
        self.zygote.start(backend.environment(os.environ))
        assert wait_until(lambda: serves(self.zygote), timeout_s=20), self.last_words()
        (ref,) = self.zygotes()
        return ref

    def zygotes(self) -> list[ProcessRef]:
        return with_argument("--serve", str(self.zygote.socket))

    def processes(self) -> set[ProcessRef]:
        """Every Python that was started or forked here, whatever it calls itself."""
        found = set()
        for pid in all_pids():
            with suppress(OSError):
                proc = Path(f"/proc/{pid}")
                same = (proc / "exe").readlink() == Path("/proc/self/exe").readlink()
                if (
                    same
                    and str(self.folder).encode() in (proc / "cmdline").read_bytes()
                    and (ref := ProcessRef.of(pid))
                ):
                    found.add(ref)
        return found

    def last_words(self) -> str:
        return self.zygote.socket.with_suffix(".log").read_text()


def serves(zygote: Zygote) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door, short_name(zygote.socket) as name:
            door.connect(name)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def answers(run: Path) -> bool:
    with connect_unix(run / "api.sock", 10) as client:
        client.sendall(GET)
        return b"Not started" in client.recv(65536)


def is_ours(ref: ProcessRef) -> bool:
    """Whether we started it ourselves."""
    return stat(ref)[1] == str(os.getpid())


def stat(ref: ProcessRef) -> list[str]:
    """From the state on."""
    return Path(f"/proc/{ref.pid}/stat").read_text().rpartition(") ")[2].split()


def facts(ref: ProcessRef, run: Path) -> dict[str, object]:
    """All that tells one engine from another, with what may differ left out."""
    proc = Path(f"/proc/{ref.pid}")
    fields = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
    # Only what is at the end of a command line can be empty, and is not looked at by anybody.
    argv = (proc / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    state = stat(ref)
    return {
        "status": {name: fields.get(name) for name in STATUS},
        "argv": [word.decode().replace(str(run), "RUN").replace(run.name, "ID") for word in argv],
        "environ": sorted(filter(None, (proc / "environ").read_bytes().split(b"\0"))),
        "exe": (proc / "exe").readlink(),
        "cwd": str((proc / "cwd").readlink()).replace(str(run), "RUN"),
        "root": (proc / "root").readlink(),
        "descriptors": {entry.name: target(entry, run) for entry in (proc / "fd").iterdir()},
        "flags": {entry.name: flags(entry) for entry in (proc / "fdinfo").iterdir()},
        "namespaces": {entry.name: entry.readlink() for entry in (proc / "ns").iterdir()},
        "leads its session": [state[2], state[3]] == [str(ref.pid)] * 2,
        "terminal": state[4],
        "scheduling": [state[place] for place in (15, 16, 37, 38)],
        **{name: (proc / name).read_text() for name in ("limits", "cgroup", "oom_score_adj", "personality", "comm")},
    }


def target(entry: Path, run: Path) -> str:
    return re.sub(r":\[\d+\]$", "", str(entry.readlink()).replace(str(run), "RUN"))


def flags(entry: Path) -> str:
    return entry.read_text().splitlines()[1]


class Request:
    """A request to a zygote, by hand."""

    def __init__(
        self, zygote: Zygote, text: bytes | dict[str, object], descriptors: Sequence[int] | None = None
    ) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(10)
        folder, netns, nothing = (os.open(path, os.O_RDONLY) for path in ("/tmp", "/proc/self/ns/net", os.devnull))
        usual = [theirs.fileno(), folder, netns, nothing, nothing, nothing]
        data = text if isinstance(text, bytes) else json.dumps(text).encode()
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            with short_name(zygote.socket) as name:
                door.connect(name)
            socket.send_fds(door, [data], usual if descriptors is None else [theirs.fileno(), *descriptors])
        for fd in (folder, netns, nothing):
            os.close(fd)

    def answer(self) -> dict[str, object]:
        """What comes back; if it is an engine, it waits."""
        found: dict[str, object] = json.loads(self.ours.recv(4096))
        return found

    def __enter__(self) -> Request:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.ours.close()


def order(name: str) -> dict[str, object]:
    return {"argv": [*backend.FIRKIN_VMM, "--id", name, "--api-sock", f"/tmp/{name}.sock"], "environ": {}}


def open_descriptors(ref: ProcessRef) -> int:
    return len(list(Path(f"/proc/{ref.pid}/fd").iterdir()))
