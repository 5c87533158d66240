"""PUT /snapshot/load by a twin: the machine out of a copy of the QEMU that was saved, where one sleeps."""

from __future__ import annotations

import os

from firkin.engine.launch import Launch, assemble, attach
from firkin.engine.machine import Machine
from firkin.engine.process import Copy, stderr_pipe
from firkin.engine.snapshot.memory import GuestMemory
from firkin.engine.snapshot.saved import SavedMachine, Traits
from firkin.engine.twin.control import NoTwin
from firkin.engine.twin.nest import Twin
from firkin.engine.wires import Wires
from firkin.errors import EngineError


def adopt(launch: Launch, saved: SavedMachine, memory: GuestMemory, twin: Twin) -> Machine:
    """The guest of a snapshot; it is stopped when this returns.

    Raises:
        NoTwin: there is no such copy, and nothing was touched.
        OSError, EngineError: there was one, and it failed.
    """
    _check(launch, saved, twin)
    launch.resources.serial.open()
    wires = Wires(launch.resources)
    stderr, theirs = stderr_pipe()
    record = twin.offer.record
    try:
        ours = wires.numbers()
        places = {
            record.numbers.monitor: ours.monitor,
            record.numbers.console: ours.console,
            2: theirs,
            **dict(zip(record.numbers.devices, ours.devices, strict=True)),
        }
        if record.numbers.calls >= 0:
            places[record.numbers.calls] = ours.calls
        wires.control.close()
        wires.control, pid = twin.control.copy(record.numbers.control, places)
        copy = Copy(pid, stderr, wires.control)
        qmp = attach(launch, wires, copy, record.numbers)
    except (OSError, EngineError):
        wires.close()
        raise
    finally:
        os.close(theirs)
    qmp.version = record.qemu_version
    traits = Traits(
        acpi=saved.acpi,
        accelerator=saved.accelerator,
        tsc_khz=saved.tsc_khz,
        qemu_version=saved.qemu_version,
        random_address=saved.random_address,
    )
    machine = assemble(launch, wires, memory, traits, child=copy, qmp=qmp, numbers=record.numbers)
    try:
        machine.wake(saved, record)
    except (OSError, EngineError) as error:
        raise EngineError(f"{error}: {machine.kill().describe()}") from error
    return machine


def _check(launch: Launch, saved: SavedMachine, twin: Twin) -> None:
    """Whether what it has open is what was opened here. Raises: NoTwin."""
    record = twin.offer.record
    if record.disks != [drive.identity() for drive in launch.resources.drives]:
        raise NoTwin("a drive's file is another")
    if record.qemu_version != saved.qemu_version:
        raise NoTwin("it is another QEMU")
