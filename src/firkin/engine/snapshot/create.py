"""PUT /snapshot/create: a paused machine into two files, of which no half ever passes for a snapshot.

The state file is what makes a snapshot loadable. An old one of the same name goes before memory changes, and the new
one comes last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from firkin.engine.faults import Area, Fault, os_text
from firkin.engine.latencies import Slow
from firkin.engine.snapshot import format as state_file
from firkin.engine.snapshot.files import Draft
from firkin.engine.snapshot.memory import GuestMemory
from firkin.engine.snapshot.saved import SavedMachine
from firkin.engine.twin import leaving
from firkin.engine.vmm import Vmm
from firkin.errors import EngineError
from firkin.fcapi.instance import InstanceState
from firkin.fcapi.snapshot import SnapshotCreate, SnapshotType
from firkin.host.sparse import write_all

_RUNNING = "Operation not allowed: save/restore unavailable while running"
_UNSAVED = "Operation not allowed: Devices without snapshot support are present: "


def create(vmm: Vmm, body: SnapshotCreate) -> None:
    """Store the machine; it stays paused. Raises: Fault."""
    diff = body.snapshot_type is SnapshotType.DIFF
    with vmm.latencies.measure(Slow.DIFF_SNAPSHOT if diff else Slow.FULL_SNAPSHOT):
        _check_can_be_saved(vmm)
        saved = _saved(vmm)
        content = state_file.encode(saved)
        memory = vmm.guest.memory
        with (
            _draft(body.snapshot_path, "snapshot") as state,
            _draft(body.mem_file_path, "memory", in_place=diff) as target,
        ):
            _store(memory, target, state, diff=diff)
            with _told("Cannot perform sync_all on the memory backing file"):
                target.commit()
            with _told("Cannot serialize the microVM state: IO Error"):
                write_all(state.fd, content, 0)
            with _told("Cannot perform sync_all on the snapshot backing file"):
                state.commit()
        leaving.leave(vmm.guest, saved, body, vmm.journal)


def _check_can_be_saved(vmm: Vmm) -> None:
    if vmm.state is not InstanceState.PAUSED:
        raise Fault(f"Cannot save the microVM state: {_RUNNING}", Area.CREATE_SNAPSHOT)
    if unsaved := [drive.config.drive_id for drive in vmm.resources.drives if drive.is_vhost_user]:
        devices = ", ".join(f"vhost-user-block(id: {name})" for name in unsaved)
        raise Fault(f"Cannot save the microVM state: {_UNSAVED}{devices}", Area.CREATE_SNAPSHOT)


def _saved(vmm: Vmm) -> SavedMachine:
    vsock = vmm.resources.vsock_device
    traits = vmm.guest.traits
    try:
        return SavedMachine(
            qemu_version=traits.qemu_version,
            accelerator=traits.accelerator,
            acpi=traits.acpi,
            saved_at_ns=time.time_ns(),
            tsc_khz=traits.tsc_khz,
            random_address=traits.random_address,
            next_host_port=vsock.next_host_port if vsock else None,
            config=vmm.resources.describe(),
            devices=vmm.guest.save_devices(),
        )
    except (EngineError, OSError) as error:
        raise Fault(f"Cannot save the microVM state: {error}", Area.CREATE_SNAPSHOT) from error


def _store(memory: GuestMemory, target: Draft, state: Draft, *, diff: bool) -> None:
    with _told("Cannot perform set_length on the memory backing file"):
        os.ftruncate(target.fd, memory.size)
    with _told("Cannot write memory file: Cannot dump memory"):
        if target.in_place:
            state.withdraw_old()
        (memory.save_changes if diff else memory.save_all)(target.fd)
        state.withdraw_old()


@contextmanager
def _draft(path: str, what: str, *, in_place: bool = False) -> Iterator[Draft]:
    with _told(f"Cannot perform open on the {what} backing file"):
        draft = Draft(path, in_place=in_place)
    with draft:
        yield draft


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Fault(f"{what}: {os_text(error)}", Area.CREATE_SNAPSHOT) from error
