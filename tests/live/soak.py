"""A soak: one engine that lives long and is watched for growth, and others that are restored from it and killed.

    soak.py [MINUTES [SEED]]

Everything happens in a network namespace made for it. Ends with a summary, and with 1 after a leak, a crash or a wrong
answer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from conformance.cases import BODIES, JSON, PATHS, VALUES
from engine_rig import Api, gone
from snapshot_rig import UDP_PORT, Snapshot, Vm, boot, build_initrd, vm, vsock_echo

from firkin.fcapi.routes import ROUTES
from firkin.host import netns

GUEST, HOST, TAPS = "192.0.2.2", "192.0.2.1", ("tap0", "tap1")
WARM_UP_ROUNDS = 10
BURST = 60
# Calls that end the guest, write where they are told, or change how the engine is watched.
SPARED = {("PUT", "/snapshot/create"), ("PUT", "/snapshot/load"), ("PUT", "/actions"), ("PUT", "/logger")}


class Vitals(NamedTuple):
    """What must not grow."""

    descriptors: int
    threads: int
    memory_kib: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        proc = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        return cls(len(list((proc / "fd").iterdir())), int(status["Threads"]), int(status["VmRSS"].split()[0]))


LIMITS = Vitals(4, 1, 16 * 1024)


class Soak:
    """The rounds, and what came of them."""

    def __init__(self, dice: random.Random, space: str, folder: Path, veteran: Vm) -> None:
        self.counts: Counter[str] = Counter()
        self._dice = dice
        self._space = space
        self._folder = folder
        self._veteran = veteran
        self._serial = 0
        self._first: Vitals | None = None
        self.growth = Vitals(0, 0, 0)

    def round(self) -> None:
        calls = (self.call_at_random, self.configure, self.be_rude, self.change_devices, self.flush)
        guests = (self.pause, self.echo, self.ping, self.restore)
        self._dice.choice((*calls, *guests))()
        self.counts["rounds"] += 1
        now = Vitals.of(self._veteran.engine.process.pid)
        if self.counts["rounds"] <= WARM_UP_ROUNDS or self._first is None:
            self._first = now
        self.growth = Vitals(*(after - before for before, after in zip(self._first, now, strict=True)))
        for name, grown, limit in zip(Vitals._fields, self.growth, LIMITS, strict=True):
            assert grown <= limit, f"{name} grew by {grown} since round {WARM_UP_ROUNDS}"

    def call_at_random(self) -> None:
        """Valid, refused and malformed calls on the running guest."""
        for _ in range(self._dice.randint(1, BURST)):
            self._random_call(self._veteran.api)
        assert self._veteran.api.call("PATCH", "/vm", {"state": "Resumed"})[0] == 204

    def configure(self) -> None:
        """The same on an engine without a guest, which then is killed or told to end."""
        with self._engine() as machine:
            for _ in range(self._dice.randint(1, BURST)):
                self._random_call(machine.api)
            machine.engine.process.send_signal(self._dice.choice((signal.SIGTERM, signal.SIGKILL)))
            assert machine.engine.wait() < 0

    def change_devices(self) -> None:
        api = self._veteran.api
        (self._folder / "other").write_bytes(bytes(512 * self._dice.randint(1, 4096)))
        bucket = {"size": self._dice.randint(1, 1 << 24), "refill_time": self._dice.randint(1, 2000)}
        for path, body in (
            ("/drives/a", {"drive_id": "a", "path_on_host": str(self._folder / self._dice.choice(("disk", "other")))}),
            ("/drives/a", {"drive_id": "a", "rate_limiter": {self._dice.choice(("bandwidth", "ops")): bucket}}),
            ("/balloon", {"amount_mib": self._dice.randint(0, 32)}),
        ):
            assert api.call("PATCH", path, body) == (204, None), (path, body)
            self.counts["device changes"] += 1

    def flush(self) -> None:
        """Each line of the metrics is whole."""
        assert self._veteran.api.call("PUT", "/actions", {"action_type": "FlushMetrics"}) == (204, None)
        metrics = self._folder / "veteran.metrics"
        for line in metrics.read_text().splitlines():
            self.counts["frames in metrics"] += json.loads(line)["net_eth0"]["rx_packets_count"]
            self.counts["metrics lines"] += 1
        os.truncate(metrics, 0)

    def be_rude(self) -> None:
        """Bytes that are no request, and clients that hang up in the middle."""
        path = self._folder / "veteran.socket"
        for _ in range(self._dice.randint(1, 12)):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(self._dice.randbytes(self._dice.randint(1, 3000)))
        self.counts["rude clients"] += 1
        assert self._veteran.api.call("GET", "/version")[0] == 200

    def pause(self) -> None:
        for state in self._dice.choices(("Paused", "Resumed"), k=5):
            assert self._veteran.api.call("PATCH", "/vm", {"state": state})[0] == 204
        assert self._veteran.api.call("PATCH", "/vm", {"state": "Resumed"})[0] == 204
        assert self._veteran.ask("count").isdigit()

    def echo(self) -> None:
        message = self._dice.randbytes(self._dice.randint(1, 100_000))
        for _ in range(self._dice.randint(1, 10)):
            assert vsock_echo(self._folder / "v.sock", message[:4096]) == message[:4096]
            self.counts["vsock echoes"] += 1

    def ping(self) -> None:
        def exchange() -> int:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.settimeout(1)
                sender.connect((GUEST, UDP_PORT))
                return sum(self._answered(sender, number) for number in range(50))

        self.counts["packets"] += netns.run_in(self._space, exchange)

    def _answered(self, sender: socket.socket, number: int) -> bool:
        """A datagram may be lost, as when the guest is only about to listen; ten in a row may not."""
        for _ in range(10):
            try:
                sender.send(b"%d" % number)
                while sender.recv(100) != b"%d" % number:
                    pass  # late, of an earlier one
            except (TimeoutError, ConnectionRefusedError):
                self.counts["packets lost"] += 1
            else:
                return True
        raise AssertionError("the guest does not answer packets")

    def restore(self) -> None:
        """Save the guest, go on with it, and bring it back once more beside it."""
        kind = self._dice.choice(("Full", "Diff"))
        snapshot = Snapshot(self._folder, f"saved-{kind}-{self._serial}")
        snapshot.create(self._veteran.api, kind)
        assert self._veteran.api.call("PATCH", "/vm", {"state": "Resumed"})[0] == 204
        self.counts[f"{kind} snapshots"] += 1
        if kind == "Full":
            self._bring_back(snapshot)
        for path in (snapshot.state, snapshot.memory):
            path.unlink()

    def _bring_back(self, snapshot: Snapshot) -> None:
        with self._engine() as machine:
            uds = self._folder / f"v{self._serial}.sock"
            overrides = [{"iface_id": "eth0", "host_dev_name": TAPS[1]}]
            machine.load(snapshot, network_overrides=overrides, vsock_override={"uds_path": str(uds)})
            qemu = machine.qemu()
            self._hear(uds)
            machine.engine.process.send_signal(self._dice.choice((signal.SIGTERM, signal.SIGKILL)))
            machine.engine.wait()
            assert gone(qemu), "a QEMU outlived its engine"
            uds.unlink()
        self.counts["restored guests"] += 1

    def _hear(self, uds: Path) -> None:
        """A guest that has just been restored may still refuse: its driver resets every connection first."""
        for _ in range(3):
            try:
                assert vsock_echo(uds, b"again") == b"again"
            except (AssertionError, OSError):
                self.counts["early refusals"] += 1
            else:
                return
        raise AssertionError("a restored guest does not answer")

    def _engine(self) -> Any:
        self._serial += 1
        return vm(self._folder, "fleeting", prefix=("ip", "netns", "exec", self._space))

    def _random_call(self, api: Api) -> None:
        method, path, body = self._dice.choice(_calls())
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        if data and self._dice.random() < 0.4:
            data = self._spoil(data)
        status = raw_call(api, method, path, data)
        assert status in {200, 204, 400, 413}, (method, path, data, status)
        self.counts[f"answers {status}"] += 1

    def _spoil(self, data: bytes) -> bytes:
        at = self._dice.randrange(len(data))
        spoilt: Callable[[], bytes] = self._dice.choice(
            (
                lambda: data[:at],
                lambda: data[:at] + self._dice.randbytes(3) + data[at:],
                lambda: data[:at] + data[at + 1 :],
                lambda: b"[" * self._dice.randint(1, 2000),
            )
        )
        return spoilt()


def _calls() -> list[tuple[str, str, Any]]:
    valid = [
        (route.method, route.path.replace("{id}", "a"), BODIES.get((route.method, route.path)))
        for route in ROUTES
        if (route.method, route.path) not in SPARED
    ]
    wrong = [(each.method, each.path, each.body) for each in (*PATHS, *JSON, *VALUES)]
    return valid + [each for each in wrong if each[:2] not in SPARED]


def raw_call(api: Api, method: str, path: str, data: bytes) -> int:
    """A call whose body is bytes as they are."""
    head = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    api._socket.sendall(head + data)
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += api._receive()
    top, _, rest = reply.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in top.split(b"\r\n") if b"Content-Length" in line), 0)
    while len(rest) < length:
        rest += api._receive()
    return int(top.split()[1])


def kernel() -> str:
    from firkin.manager.context import Context
    from firkin.settings import load

    context = Context(load({"FIRKIN_HOME": os.environ["FIRKIN_TEST_HOME"]}))
    found = context.kernels.get("build")
    context.close()
    if found is None:
        sys.exit("no kernel `build` in FIRKIN_TEST_HOME: run script/test first")
    return str(context.blobs.path(found.digest))


def make_namespace(undo: ExitStack) -> str:
    space = f"fksoak-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", space], check=True)
    undo.callback(subprocess.run, ["ip", "netns", "delete", space], check=True)
    for tap in TAPS:
        subprocess.run(["ip", "-n", space, "tuntap", "add", tap, "mode", "tap"], check=True)
        subprocess.run(["ip", "-n", space, "link", "set", tap, "up"], check=True)
    subprocess.run(["ip", "-n", space, "address", "add", f"{HOST}/24", "dev", TAPS[0]], check=True)
    return space


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    print(f"soak of {minutes:g} minutes, seed {seed}", flush=True)  # noqa: T201
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="firkin-soak-")))
        space = make_namespace(undo)
        os.chdir(folder)  # where calls without a folder leave their files
        inside = ("ip", "netns", "exec", space)
        veteran = undo.enter_context(vm(folder, "veteran", prefix=inside))
        nic = {"iface_id": "eth0", "host_dev_name": TAPS[0]}
        (folder / "disk").write_bytes(bytes(1 << 20))
        devices: dict[str, dict[str, object]] = {
            "network_interfaces-id-eth0": {**nic},
            "vsock": {"guest_cid": 3, "uds_path": str(folder / "v.sock")},
            "drives-id-a": {"drive_id": "a", "is_root_device": False, "path_on_host": str(folder / "disk")},
            "balloon": {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1},
            "metrics": {"metrics_path": str(folder / "veteran.metrics")},
        }
        boot(veteran, kernel(), build_initrd(folder), address=GUEST, **devices)
        soak = Soak(random.Random(seed), space, folder, veteran)
        failure: Exception | None = None
        until = time.monotonic() + minutes * 60
        try:
            while time.monotonic() < until:
                soak.round()
        except (AssertionError, OSError) as error:
            failure = error
        for name, count in sorted(soak.counts.items()):
            print(f"{name:18} {count:8}")  # noqa: T201
        print(f"growth of the long-lived engine: {soak.growth._asdict()}")  # noqa: T201
    if failure is not None:
        traceback.print_exception(failure)
        sys.exit(f"failed with seed {seed}")
    print("no leak, no crash")  # noqa: T201


if __name__ == "__main__":
    main()
