"""One QEMU from its start to its end: monitor, console and the process itself, as seen by the loop."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from firkin.engine import accel, process, tsc
from firkin.engine.accel import Accel
from firkin.engine.boot_timer import BootTimer
from firkin.engine.console import Console
from firkin.engine.faults import Area, Fault, os_text
from firkin.engine.journal import Journal
from firkin.engine.live import Live
from firkin.engine.loop import READ, Loop
from firkin.engine.plan import Channels, Surroundings, inherited, plan_boot, plan_restored
from firkin.engine.privileges import can_become_nobody
from firkin.engine.qemu_argv import PROGRAM, Guest, qemu_argv
from firkin.engine.qmp import Message, Qmp, QmpClosed
from firkin.engine.resources import Resources
from firkin.engine.serial_out import SerialOut, console_of
from firkin.engine.snapshot import device_state, reseed
from firkin.engine.snapshot.handover import Handover
from firkin.engine.snapshot.memory import GuestMemory, OwnMemory
from firkin.engine.snapshot.saved import SavedMachine, Traits
from firkin.errors import EngineError, FirkinError
from firkin.fcapi.machine import HugePages

if TYPE_CHECKING:
    from firkin.engine.vhost import Trap

_CONSOLE_BUFFER = 1 << 20
_TSC_TOLERANCE = 0.001

OnExit = Callable[[process.Ended], None]


class Machine:
    """A running guest. Made by `boot` and `restore`."""

    def __init__(
        self,
        launch: Launch,
        child: process.Child,
        trap: Trap | None,
        qmp: Qmp,
        live: Live,
        console: Console | SerialOut,
        memory: GuestMemory,
        traits: Traits,
    ) -> None:
        self.live = live
        self.memory = memory
        self.traits = traits
        self._loop = launch.loop
        self._journal = launch.journal
        self._child = child
        self._trap = trap
        self._qmp = qmp
        self._console = console
        self._on_exit = launch.on_exit
        self._boot_timer = launch.boot_timer
        self._loop.watch(child.pidfd, READ, self._reap)
        self._loop.watch(child.stderr, READ, self._hear_stderr)
        self._loop.watch(qmp.fileno(), READ, self._hear_qmp)

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
        self.memory.attach(self._child.pid, device_state.memory_address(self._qmp))
        if saved.random_address is None or not self.memory.reseed(saved.random_address):
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
        self._console.close()
        if self._trap:
            self._trap.close()
        self.memory.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What every start of a guest needs."""

    loop: Loop
    journal: Journal
    resources: Resources
    name: str
    sandbox: bool
    on_exit: OnExit
    accel: accel.Choice = accel.Choice.AUTO
    boot_timer: BootTimer | None = None

    def around(self) -> Surroundings:
        tsc_khz = tsc.host_khz()
        if tsc_khz is None:
            self.journal.warn("The rate of the host's TSC is unknown: the guest calibrates its own, which may hang.")
        return Surroundings(
            name=self.name,
            tsc_khz=tsc_khz,
            sandbox=self.sandbox,
            other_user=can_become_nobody(),
            accel=accel.choose(self.accel),
            boot_timer=self.boot_timer is not None,
        )


def boot(launch: Launch) -> Machine:
    """Start the configured guest; it runs when this returns.

    Raises:
        Fault: it cannot be started; everything is as before, and the configuration can be mended.
    """
    config = launch.resources.machine
    try:
        memory = OwnMemory(
            config.mem_size_mib << 20,
            huge_pages=config.huge_pages is HugePages.HUGETLBFS_2M,
            track=config.track_dirty_pages,
        )
    except OSError as error:
        text = f"Invalid Memory Configuration: Cannot create mmap region: {os_text(error)}"
        raise Fault(text, Area.START) from error
    source = launch.resources.boot
    random_address = reseed.find(source.kernel_fd) if source else None
    try:
        return _start(
            launch,
            memory,
            lambda around, channels: plan_boot(launch.resources, around, channels),
            random_address,
        )
    except (OSError, FirkinError) as error:
        memory.close()
        launch.resources.renew_vsock()
        raise error if isinstance(error, Fault) else Fault(f"Internal error: {error}", Area.START) from error


def restore(launch: Launch, saved: SavedMachine, memory: GuestMemory) -> Machine:
    """Start the guest of a snapshot on `memory`; it is stopped when this returns.

    Raises:
        OSError, FirkinError: this is not the QEMU that can, or it did not take the state.
    """

    def plan(around: Surroundings, channels: Channels) -> tuple[Guest, set[int]]:
        return plan_restored(launch.resources, around, channels, acpi=saved.acpi), set()

    if launch.accel is accel.Choice.AUTO:
        launch = replace(launch, accel=accel.Choice(saved.accelerator))
    machine = _start(launch, memory, plan, saved.random_address)
    try:
        machine.load(saved)
    except (OSError, EngineError) as error:
        raise EngineError(f"{error}: {machine.kill().describe()}") from error
    return machine


def _start(
    launch: Launch,
    memory: GuestMemory,
    plan: Callable[[Surroundings, Channels], tuple[Guest, set[int]]],
    random_address: int | None,
) -> Machine:
    around = launch.around()
    launch.resources.serial.open()
    our_monitor, their_monitor = socket.socketpair()
    our_console, their_console = socket.socketpair()
    # Each character is a message with an overhead of its own: room for a burst, so that the guest need not wait.
    their_console.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CONSOLE_BUFFER)
    channels = Channels(
        monitor_fd=their_monitor.fileno(),
        console_fd=their_console.fileno(),
        memory_fd=memory.fd,
        memory_shared=memory.shared,
    )
    trap = _set_trap(launch.resources)
    try:
        with their_monitor, their_console:
            guest, made = plan(around, channels)
            child = _spawn(launch, guest, made, memory, trap)
        qmp = Qmp(our_monitor, lambda event: _log_event(launch.journal, event))
        live = Live(launch.loop, qmp, launch.resources)
        _negotiate(qmp, live, child)
    except (OSError, FirkinError):
        our_monitor.close()
        our_console.close()
        if trap:
            trap.close()
        raise
    launch.resources.release_files()
    traits = Traits(
        acpi=guest.acpi,
        accelerator=guest.accel,
        tsc_khz=around.tsc_khz,
        qemu_version=qmp.version,
        random_address=random_address,
    )
    console = console_of(launch.loop, our_console, launch.resources.serial)
    return Machine(launch, child, trap, qmp, live, console, memory, traits)


def _set_trap(resources: Resources) -> Trap | None:
    """For the devices that the engine serves itself."""
    devices = resources.vhost_devices()
    if not devices:
        return None
    from firkin.engine.vhost import Trap

    if resources.mmds is not None:
        from firkin.engine.mmds.stack import stack_for

        for nic in resources.nics:
            nic.device.stack = stack_for(resources.mmds, nic.config.iface_id)
    return Trap(devices)


def _spawn(launch: Launch, guest: Guest, made: set[int], memory: GuestMemory, trap: Trap | None) -> process.Child:
    # What the forked child does to itself before it becomes QEMU.
    steps = [] if memory.shared else [Handover(memory.fd).install]
    if trap:
        steps.append(trap.child_setup)
    try:
        argv = qemu_argv(guest, process.find(PROGRAM))
        launch.journal.debug("QEMU: " + " ".join(argv))
        child = process.spawn(
            argv,
            inherited(guest) | set(trap.inherited_fds if trap else ()),
            steps,
            group=accel.group_of_device() if guest.accel is Accel.KVM else None,
        )
    finally:
        for fd in made:
            os.close(fd)
    if trap:
        _attach(trap, child)
    return child


def _negotiate(qmp: Qmp, live: Live, child: process.Child) -> None:
    try:
        qmp.negotiate()
        live.begin()
    except EngineError as error:
        if not isinstance(error, QmpClosed):
            child.kill()
        raise EngineError(child.wait().describe()) from error


def _attach(trap: Trap, child: process.Child) -> None:
    try:
        trap.attach(child.pid)
    except EngineError as error:
        child.kill()
        raise EngineError(f"{error}: {child.wait().describe()}") from error


def _log_event(journal: Journal, event: Message) -> None:
    journal.debug(f"QEMU event {event.get('event')}: {event.get('data', {})}")
