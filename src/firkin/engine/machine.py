"""One QEMU while it runs: monitor, console and the process itself, as seen by the loop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firkin.engine import process
from firkin.engine.accel import Accel
from firkin.engine.boot_timer import BootTimer
from firkin.engine.console import Console
from firkin.engine.journal import Journal
from firkin.engine.live import Live
from firkin.engine.loop import READ, Loop
from firkin.engine.qmp import Qmp, QmpClosed
from firkin.engine.resources import Resources
from firkin.engine.serial_out import SerialOut
from firkin.engine.snapshot import device_state
from firkin.engine.snapshot.memory import GuestMemory
from firkin.engine.snapshot.saved import SavedMachine, Traits
from firkin.engine.twin.control import Control, NoTwin
from firkin.engine.twin.record import Numbers, Record
from firkin.errors import EngineError

if TYPE_CHECKING:
    from firkin.engine.vhost import Trap

STDERR = 2
_TSC_TOLERANCE = 0.001

OnExit = Callable[[process.Ended], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A running QEMU and everything on our side of it. `trap` is there if it has devices that the engine serves.

    `numbers` are those of QEMU's ends; `disks` device and inode of its drives' files.
    """

    child: process.Emulator
    control: Control
    numbers: Numbers
    disks: list[tuple[int, int]]
    trap: Trap | None
    resources: Resources
    qmp: Qmp
    live: Live
    console: Console | SerialOut
    memory: GuestMemory
    traits: Traits


def obstacle(accelerator: Accel, *, shared_memory: bool, replaced_drives: bool) -> str | None:
    """What keeps a QEMU from being copied; None if nothing does."""
    if accelerator is not Accel.TCG:
        return "what the kernel knows of a guest is not in QEMU"
    if shared_memory:
        return "a copy would write to the same memory"
    return "its drives are not the configured files any more" if replaced_drives else None


class Machine:
    """A running guest. Made by `launch.boot` and `launch.restore`."""

    def __init__(
        self, loop: Loop, journal: Journal, parts: Parts, on_exit: OnExit, boot_timer: BootTimer | None
    ) -> None:
        self.live = parts.live
        self.traits = parts.traits
        self._loop = loop
        self._journal = journal
        self._child = parts.child
        self._control = parts.control
        self._numbers = parts.numbers
        self._disks = parts.disks
        self._trap = parts.trap
        self._resources = parts.resources
        self._memory = parts.memory
        self._memory_address: int | None = None
        self._qmp = parts.qmp
        self._console = parts.console
        self._on_exit = on_exit
        self._boot_timer = boot_timer
        loop.watch(self._child.pidfd, READ, self._reap)
        loop.watch(self._child.stderr, READ, self._hear_stderr)
        loop.watch(self._qmp.fileno(), READ, self._hear_qmp)

    @property
    def memory(self) -> GuestMemory:
        """What the guest's memory holds. Raises: EngineError, OSError, at first."""
        self._find_memory()
        return self._memory

    def _find_memory(self, known: int | None = None) -> int:
        if self._memory_address is None:
            address = device_state.memory_address(self._qmp) if known is None else known
            self._memory.attach(self._child.pid, address)
            self._memory_address = address
        return self._memory_address

    def pause(self) -> None:
        """Stop the virtual processors. Raises: EngineError."""
        self._qmp.execute("stop")

    def resume(self) -> None:
        """Let them run again. Raises: EngineError."""
        self._qmp.execute("cont")

    def press_ctrl_alt_del(self) -> None:
        """On the guest's keyboard; what comes of it is the guest's business. Raises: EngineError."""
        self._qmp.execute("send-key", keys=[{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")])

    def console_counters(self) -> dict[str, int]:
        """Bytes of the serial port, by the metrics' names."""
        console = self._console
        return {
            "read_count": console.read_bytes,
            "write_count": console.written_bytes,
            "rate_limiter_dropped_bytes": console.dropped_bytes,
        }

    def save_devices(self) -> bytes:
        """The state of processors and devices of the stopped guest. Raises: EngineError, OSError."""
        return device_state.save(self._qmp)

    def load(self, saved: SavedMachine) -> None:
        """Become the machine that was saved; it stays stopped. Raises: EngineError, OSError."""
        self._compare(saved)
        device_state.load(self._qmp, saved.devices)
        if self._resources.vsock_device is not None:
            self._resources.vsock_device.expect_notice(device_state.event_ring(self._qmp))
        self._find_memory()
        self._reseed(saved)

    def wake(self, saved: SavedMachine, record: Record) -> None:
        """As `load`, in a copy that is the saved machine already. Raises: EngineError, OSError."""
        self._find_memory(record.memory_address)
        for nic, interface in zip(self._resources.nics, record.interfaces, strict=True):
            nic.device.resume(interface)
        if self._resources.vsock_device is not None:
            self._resources.vsock_device.expect_resets(record.connections)
        self._reseed(saved)

    def fall_asleep(self) -> tuple[Control, Record]:
        """A copy of the stopped QEMU that stays as it is now. Raises: EngineError, OSError: there is none."""
        replaced = any(drive.generation for drive in self._resources.drives)
        if why := obstacle(self.traits.accelerator, shared_memory=self._memory.shared, replaced_drives=replaced):
            raise NoTwin(why)
        vsock = self._resources.vsock_device
        record = Record(
            numbers=self._numbers,
            qemu_version=self.traits.qemu_version,
            memory_address=self._find_memory(),
            disks=self._disks,
            interfaces=[nic.device.interface() for nic in self._resources.nics],
            connections=vsock.connections() if vsock else [],
        )
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        control, theirs = Control.pair()
        try:
            ends = {self._numbers.monitor, self._numbers.console, self._numbers.calls, STDERR} - {-1}
            self._control.copy(control, {**dict.fromkeys(ends, nothing), self._numbers.control: theirs.fileno()})
        except NoTwin:
            control.close()
            raise
        finally:
            theirs.close()
            os.close(nothing)
        return control, record

    def _reseed(self, saved: SavedMachine) -> None:
        if saved.random_address is None or not self._memory.reseed(saved.random_address):
            self._journal.warn(
                "The guest's random number generator is not found in its memory: "
                "until it reseeds itself, it shares its random numbers with others of the same snapshot."
            )

    def _compare(self, saved: SavedMachine) -> None:
        """Whether this is the machine that can go on. Raises: EngineError."""
        ours = self.traits
        if ours.qemu_version != saved.qemu_version:
            raise EngineError(f"the snapshot was made with QEMU {saved.qemu_version}, and this is {ours.qemu_version}")
        if ours.accelerator is not saved.accelerator:
            raise EngineError(f"the snapshot was made with {saved.accelerator}, and this is {ours.accelerator}")
        if ours.tsc_khz and saved.tsc_khz and abs(ours.tsc_khz / saved.tsc_khz - 1) > _TSC_TOLERANCE:
            text = f"The guest's TSC ran at {saved.tsc_khz} kHz and here runs at {ours.tsc_khz}: its clock is off."
            self._journal.warn(text)

    def kill(self) -> process.Ended:
        """End QEMU now and reap it; the loop hears nothing more."""
        self._child.kill()
        self._leave()
        return self._child.wait()

    def _hear_qmp(self, _events: int) -> None:
        try:
            self._qmp.pump()
        except QmpClosed:
            self._loop.forget(self._qmp.fileno())  # it is ending; the pidfd tells when and how

    def _hear_stderr(self, _events: int) -> None:
        data = self._child.read_stderr()
        if data == b"":
            self._loop.forget(self._child.stderr)
        elif data and self._boot_timer is not None:
            self._boot_timer.hear(data, self._child.pid)
            if self._boot_timer.is_over:
                self._boot_timer = None
                with contextlib.suppress(EngineError):  # it may be ending
                    self._qmp.execute("human-monitor-command", command_line="log none")

    def _reap(self, _events: int) -> None:
        self._loop.forget(self._child.stderr)
        self._loop.forget(self._child.pidfd)
        ended = self._child.wait()
        self._console.drain()
        self._leave()
        self._on_exit(ended)

    def _leave(self) -> None:
        for fd in (self._child.pidfd, self._child.stderr, self._qmp.fileno()):
            self._loop.forget(fd)
        self._qmp.close()
        self._control.close()
        self._console.close()
        if self._trap:
            self._trap.close()
        self._memory.close()
