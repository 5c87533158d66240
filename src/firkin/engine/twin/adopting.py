"""PUT /snapshot/load by a twin: the machine out of a copy of the QEMU that was saved, where one sleeps."""

from __future__ import annotations

import os

from firkin.engine.launch import Launch, assemble, attach
from firkin.engine.machine import STDERR, Machine
from firkin.engine.process import Copy, stderr_pipe
from firkin.engine.snapshot.memory import GuestMemory
from firkin.engine.snapshot.saved import SavedMachine
from firkin.engine.twin.control import NoTwin
from firkin.engine.twin.nest import Twin
from firkin.engine.twin.record import Numbers
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
    wires, record = Wires(launch.resources), twin.offer.record
    try:
        copy = _copy(twin, wires)
        qmp = attach(launch, wires, copy, record.numbers)
    except (OSError, EngineError):
        wires.close()
        raise
    qmp.version = record.qemu_version
    machine = assemble(launch, wires, memory, saved.traits, child=copy, qmp=qmp, numbers=record.numbers)
    try:
        machine.wake(saved, record)
    except (OSError, EngineError) as error:
        raise EngineError(f"{error}: {machine.kill().describe()}") from error
    return machine


def _copy(twin: Twin, wires: Wires) -> Copy:
    """A QEMU of ours, with its ends of our wires where the sleeper had others. Raises: OSError, NoTwin."""
    stderr, theirs = stderr_pipe()
    try:
        places = {STDERR: theirs, **_places(twin.offer.record.numbers, wires.numbers())}
        return Copy(twin.control.copy(wires.control, places), stderr, wires.control)
    except (OSError, NoTwin):
        os.close(stderr)
        raise
    finally:
        os.close(theirs)


def _places(there: Numbers, here: Numbers) -> dict[int, int]:
    """What QEMU had, by its numbers, and what it gets; where it serves all devices itself, none is for them."""
    pairs = [
        (there.monitor, here.monitor),
        (there.console, here.console),
        (there.control, here.control),
        (there.calls, here.calls),
        *zip(there.devices, here.devices, strict=True),
    ]
    return {old: new for old, new in pairs if old >= 0}


def _check(launch: Launch, saved: SavedMachine, twin: Twin) -> None:
    """Whether what it has open is what was opened here. Raises: NoTwin."""
    record = twin.offer.record
    if record.disks != [drive.identity() for drive in launch.resources.drives]:
        raise NoTwin("a drive's file is another")
    if record.qemu_version != saved.qemu_version:
        raise NoTwin("it is another QEMU")
