"""After PUT /snapshot/create: a twin of the machine, for whoever loads the snapshot next. Nobody depends on it."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import msgspec

from firkin.engine.journal import Journal
from firkin.engine.snapshot.saved import SavedMachine
from firkin.engine.twin.nest import Offer, Stamp
from firkin.engine.vmm import Running
from firkin.errors import EngineError
from firkin.fcapi.snapshot import SnapshotCreate, SnapshotType
from firkin.host.unix import short_name
from firkin.paths import NEST


def leave(machine: Running, saved: SavedMachine, body: SnapshotCreate, journal: Journal) -> None:
    """Have the stopped machine copied, and give the copy to whoever keeps such, if anybody does."""
    keeper = os.environ.get(NEST)
    if not keeper or body.snapshot_type is not SnapshotType.FULL:
        return
    try:
        control, record = machine.fall_asleep()
        try:
            state, memory = os.path.abspath(body.snapshot_path), os.path.abspath(body.mem_file_path)  # noqa: PTH100
            offer = Offer(
                state=state,
                memory=memory,
                state_stamp=Stamp.of(state),
                memory_stamp=Stamp.of(memory),
                record=record,
                saved=msgspec.structs.replace(saved, devices=b""),
            )
            _send(keeper, msgspec.json.encode(offer), control.fileno())
        finally:
            control.close()
    except (EngineError, OSError) as error:
        journal.debug(f"No twin of this snapshot: {error}")


def _send(keeper: str, text: bytes, control: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door, short_name(Path(keeper)) as name:
        door.connect(name)
        door.setblocking(False)
        door.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", control))])
