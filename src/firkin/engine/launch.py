"""The start of one QEMU: what it is given, how it is confined, and when it counts as running."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

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
from firkin.engine.snapshot.memory import GuestMemory, fresh_memory
from firkin.engine.snapshot.saved import SavedMachine, Traits
from firkin.engine.twin.library import Library
from firkin.engine.twin.record import Numbers
from firkin.engine.wires import Wires
from firkin.errors import EngineError, FirkinError


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
    try:
        memory = fresh_memory(
            launch.resources.machine, lent=any(drive.is_vhost_user for drive in launch.resources.drives)
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
    wires = Wires(launch.resources)
    numbers = wires.numbers()
    channels = Channels(
        monitor_fd=numbers.monitor,
        console_fd=numbers.console,
        memory_fd=memory.fd,
        memory_shared=memory.shared,
    )
    try:
        guest, made = plan(around, channels)
        child = _spawn(launch, guest, made, memory, numbers)
        qmp = attach(launch, wires, child, numbers)
        _negotiate(qmp, child)
    except (OSError, FirkinError):
        wires.close()
        raise
    traits = Traits(
        acpi=guest.acpi,
        accelerator=guest.accel,
        tsc_khz=around.tsc_khz,
        qemu_version=qmp.version,
        random_address=random_address,
    )
    return assemble(launch, wires, memory, traits, child=child, qmp=qmp, numbers=numbers)


def attach(launch: Launch, wires: Wires, emulator: process.Emulator, numbers: Numbers) -> Qmp:
    """Serve a QEMU that has its ends of the wires. Raises: EngineError, and QEMU has ended."""
    wires.hand_over()
    if wires.trap:
        try:
            wires.trap.attach(emulator.pid, numbers.devices)
        except EngineError as error:
            emulator.kill()
            raise EngineError(f"{error}: {emulator.wait().describe()}") from error
    return Qmp(wires.monitor, lambda event: _log_event(launch.journal, event))


def assemble(
    launch: Launch,
    wires: Wires,
    memory: GuestMemory,
    traits: Traits,
    *,
    child: process.Emulator,
    qmp: Qmp,
    numbers: Numbers,
) -> Machine:
    """The machine around a QEMU that answers. Raises: EngineError, and QEMU has ended."""
    resources = launch.resources
    live = Live(launch.loop, qmp, resources)
    try:
        live.begin()
    except EngineError as error:
        raise _last_words(child, error) from error
    disks = [drive.identity() for drive in resources.drives]
    resources.release_files()
    parts = Parts(
        child=child,
        control=wires.control,
        numbers=numbers,
        disks=disks,
        trap=wires.trap,
        resources=resources,
        qmp=qmp,
        live=live,
        console=console_of(launch.loop, wires.console, resources.serial),
        memory=memory,
        traits=traits,
    )
    return Machine(launch.loop, launch.journal, parts, launch.on_exit, launch.boot_timer)


def _spawn(launch: Launch, guest: Guest, made: set[int], memory: GuestMemory, numbers: Numbers) -> process.Child:
    # What the forked child does to itself before it becomes QEMU.
    steps = [] if memory.shared or memory.fd is None else [Handover(memory.fd).install]
    library = Library()
    try:
        argv = qemu_argv(guest, process.find(PROGRAM))
        launch.journal.debug("QEMU: " + " ".join(argv))
        return process.spawn(
            argv,
            inherited(guest) | {numbers.control, library.fd, *numbers.devices, *_if_there(numbers.calls)},
            steps,
            environment=library.environment(numbers),
            group=accel.group_of_device() if guest.accel is Accel.KVM else None,
        )
    finally:
        library.close()
        for fd in made:
            os.close(fd)


def _if_there(fd: int) -> tuple[int, ...]:
    return (fd,) if fd >= 0 else ()


def _negotiate(qmp: Qmp, child: process.Child) -> None:
    try:
        qmp.negotiate()
    except EngineError as error:
        raise _last_words(child, error) from error


def _last_words(child: process.Emulator, error: EngineError) -> EngineError:
    if not isinstance(error, QmpClosed):
        child.kill()
    return EngineError(child.wait().describe())


def _log_event(journal: Journal, event: Message) -> None:
    journal.debug(f"QEMU event {event.get('event')}: {event.get('data', {})}")
