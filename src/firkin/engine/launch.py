"""The start of one QEMU: what it is given, how it is confined, and when it counts as running."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from firkin.engine import accel, process, tsc
from firkin.engine.accel import Accel
from firkin.engine.boot_timer import BootTimer
from firkin.engine.faults import Area, Fault, os_text
from firkin.engine.journal import Journal
from firkin.engine.live import Live
from firkin.engine.loop import Loop
from firkin.engine.machine import Machine, OnExit, Parts
from firkin.engine.plan import Channels, Surroundings, inherited, plan_boot, plan_restored
from firkin.engine.privileges import can_become_nobody
from firkin.engine.qemu_argv import PROGRAM, Guest, qemu_argv
from firkin.engine.qmp import Message, Qmp, QmpClosed
from firkin.engine.resources import Resources
from firkin.engine.serial_out import console_of
from firkin.engine.snapshot import reseed
from firkin.engine.snapshot.handover import Handover
from firkin.engine.snapshot.memory import GuestMemory, OwnMemory
from firkin.engine.snapshot.saved import SavedMachine, Traits
from firkin.errors import EngineError, FirkinError
from firkin.fcapi.machine import HugePages

if TYPE_CHECKING:
    from firkin.engine.vhost import Trap

_CONSOLE_BUFFER = 1 << 20


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
    parts = Parts(
        child=child,
        trap=trap,
        vsock=launch.resources.vsock_device,
        qmp=qmp,
        live=live,
        console=console_of(launch.loop, our_console, launch.resources.serial),
        memory=memory,
        traits=traits,
    )
    return Machine(launch.loop, launch.journal, parts, launch.on_exit, launch.boot_timer)


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
