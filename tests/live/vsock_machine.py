"""A QEMU microvm whose initramfs holds nothing but the vsock test program: a guest to try the vsock device on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firkin.engine.twin.library import Library
from firkin.engine.twin.record import Numbers
from firkin.engine.vhost import Trap
from firkin.engine.vsock import VsockDevice
from firkin.engine.vsock.device import DEVICE_ID
from firkin.engine.vsock.notice import EVENT_QUEUE

SOURCE = Path(__file__).with_name("vsock_guest.c")
ECHO, COMMANDS = 1001, 1000
NOBODY = 65534
BLOCK = 65536
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_WORD = 0x9E3779B97F4A7C15
_BASE = b"".join((i * _WORD & 2**64 - 1).to_bytes(8, "little") for i in range(BLOCK // 8))


def kernel() -> Path:
    """The kernel to boot; skips the test where there is none."""
    path = os.environ.get("FIRKIN_TEST_KERNEL")
    if not path:
        pytest.skip("FIRKIN_TEST_KERNEL names no kernel with virtio-mmio by command line and vsock")
    return Path(path)


def build_initrd(directory: Path) -> Path:
    """Compile the guest and pack it as the only file of an initramfs."""
    for program in ("musl-gcc", "qemu-system-x86_64"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    init = directory / "init"
    subprocess.run(
        [
            "musl-gcc",
            "-static",
            "-O2",
            "-idirafter",
            "/usr/include",
            "-idirafter",
            "/usr/include/x86_64-linux-gnu",
            "-o",
            init,
            SOURCE,
        ],
        check=True,
    )
    initrd = directory / "initrd.cpio"
    initrd.write_bytes(_cpio("init", init.read_bytes(), 0o100755) + _cpio("TRAILER!!!", b"", 0))
    return initrd


def _cpio(name: str, data: bytes, mode: int) -> bytes:
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def pattern(size: int) -> Iterator[bytes]:
    """The guest's pattern in blocks: the first word of each holds its number."""
    for number, at in enumerate(range(0, size, BLOCK)):
        yield (number.to_bytes(8, "little") + _BASE[8:])[: size - at]


class Machine:
    """A running guest. `memory` is the file behind its memory; `fork` maps it privately."""

    def __init__(self, directory: Path, uds: Path, device: VsockDevice) -> None:
        self.directory = directory
        self.uds = uds
        self.device = device
        self.trap = Trap([device])
        self.memory = directory / "memory"
        self._qmp, self._qemu_end = socket.socketpair()
        self._qmp.settimeout(30)
        self._unread = b""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: list[str], *, share: bool) -> None:
        """Spawn QEMU as the engine does: unprivileged, sandboxed, with the library that asks us."""
        if not self.memory.exists():
            self.memory.write_bytes(b"")
            os.truncate(self.memory, 128 << 20)
            self.memory.chmod(0o666)
        monitor = self._qemu_end.fileno()
        user = NOBODY if os.getuid() == 0 else None
        backend = f"memory-backend-file,id=mem,size=128M,mem-path={self.memory},share={'on' if share else 'off'}"
        argv = [
            *("qemu-system-x86_64", "-accel", "tcg", "-m", "128", "-object", backend),
            *("-M", "microvm,acpi=off,x-option-roms=off,rtc=on,pic=on,pit=on,isa-serial=off,memory-backend=mem"),
            *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-sandbox", SANDBOX),
            *("-global", "virtio-mmio.force-legacy=false"),
            *("-chardev", f"socket,id=qmp,fd={monitor}", "-mon", "chardev=qmp,mode=control"),
            *self.device.qemu_args(),
            *arguments,
        ]
        library, devices = Library(), self.trap.device_fds
        self.process = subprocess.Popen(
            argv,
            pass_fds=(monitor, library.fd, self.trap.calls_fd, *devices),
            env=library.environment(Numbers(monitor, -1, -1, self.trap.calls_fd, devices))
            | {"PATH": os.environ["PATH"]},
            user=user,
            group=user,
            extra_groups=[] if user else None,
            stdin=subprocess.DEVNULL,
        )
        library.close()
        self._qemu_end.close()
        self.trap.attach(self.process.pid, devices)
        self._read_qmp()
        self.qmp("qmp_capabilities")

    def boot(self, initrd: Path) -> None:
        append = "reboot=t panic=-1 quiet nolapic_timer noreplace-smp"
        self.start(["-kernel", str(kernel()), "-initrd", str(initrd), "-append", append], share=True)

    def _read_qmp(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            data = self._qmp.recv(65536)
            assert data, "QEMU ended"
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def qmp(self, command: str, *, fds: tuple[int, ...] = (), **arguments: object) -> Any:
        text = json.dumps({"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}})
        socket.send_fds(self._qmp, [text.encode()], list(fds))
        while True:
            message = self._read_qmp()
            assert "error" not in message, message
            if "return" in message:
                return message["return"]

    def migrated(self) -> str:
        """Wait for a migration, in or out, to end."""
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            status: str = self.qmp("query-migrate").get("status", "none")
            if status in ("completed", "failed"):
                return status
            time.sleep(0.005)
        raise TimeoutError("migration")

    def save(self, state: Path) -> None:
        """Stop the guest and write its devices' state; its memory is already in the file."""
        self.qmp("stop")
        self._ignore_shared()
        with state.open("wb") as file:
            self.qmp("getfd", fds=(file.fileno(),), fdname="state")
            self.qmp("migrate", uri="fd:state")
            assert self.migrated() == "completed"

    def restore(self, state: Path) -> None:
        """Become a fork of the saved guest, on a private copy of its memory."""
        self.start(["-incoming", "defer"], share=False)
        self._ignore_shared()
        with state.open("rb") as file:
            self.qmp("getfd", fds=(file.fileno(),), fdname="state")
            self.qmp("migrate-incoming", uri="fd:state")
            assert self.migrated() == "completed"
        path = f"/machine/peripheral/{DEVICE_ID}"
        self.device.expect_notice(self.qmp("x-query-virtio-queue-status", path=path, queue=EVENT_QUEUE)["vring-avail"])
        self.qmp("cont")

    def _ignore_shared(self) -> None:
        self.qmp("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def connect(self, port: int, *, timeout_s: float = 20) -> socket.socket:
        """A connection that the guest accepted; ConnectionRefusedError when it did not."""
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(timeout_s)
        try:
            connected.connect(str(self.uds))
            connected.sendall(b"CONNECT %d\n" % port)
            _expect_ok(connected)
        except (ConnectionResetError, BrokenPipeError) as reason:  # it closed before it read our greeting
            connected.close()
            raise ConnectionRefusedError(f"port {port}") from reason
        except BaseException:
            connected.close()
            raise
        return connected

    def command(self, line: str) -> socket.socket:
        connected = self.connect(COMMANDS)
        connected.sendall(line.encode() + b"\n")
        return connected

    def wait_ready(self, *, timeout_s: float = 30) -> None:
        """Until the guest's servers listen."""
        deadline_s = time.monotonic() + timeout_s
        for port in (ECHO, COMMANDS):
            while True:
                try:
                    self.connect(port).close()
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline_s, "the guest does not listen"
                    time.sleep(0.02)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.trap.close()
        self.device.close()
        self._qmp.close()
        self._qemu_end.close()


def _expect_ok(connected: socket.socket) -> None:
    """Read the answer and not a byte of what follows it."""
    answer = b""
    while not answer.endswith(b"\n"):
        byte = connected.recv(1)
        if not byte:
            raise ConnectionRefusedError("the guest did not accept")
        answer += byte
    assert answer.startswith(b"OK ")


@contextmanager
def machine(directory: Path, name: str = "v.sock", *, memory_of: Machine | None = None) -> Iterator[Machine]:
    """A machine that is not started yet, gone at the end."""
    uds = directory / name
    made = Machine(directory, uds, VsockDevice(3, str(uds)))
    if memory_of is not None:
        made.memory = memory_of.memory
    try:
        yield made
    finally:
        made.end()


def read_all(connected: socket.socket) -> bytes:
    pieces = []
    while data := connected.recv(1 << 18):
        pieces.append(data)
    return b"".join(pieces)
