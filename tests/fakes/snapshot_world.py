"""Snapshots of machines that never were: rows and small memories for tests of what is done with them."""

from __future__ import annotations

import os
from pathlib import Path

from firkin.manager import snapshots
from firkin.manager.context import Context
from firkin.manager.snapshot_files import PAGE_SIZE, Files
from firkin.spec import MachineSpec
from firkin.store.snapshots import SnapshotRecord

MEMORY_MIB = 32


def put(context: Context, number: int, pages: dict[int, bytes], parent: int | None = None) -> SnapshotRecord:
    """A snapshot of which some pages of memory are stored."""
    record = SnapshotRecord(
        id=f"{number:012x}",
        name=f"s{number}",
        machine="box",
        spec=MachineSpec(image="busybox", memory_mib=MEMORY_MIB),
        engine="firkin-vmm",
        kernel_digest="0" * 64,
        image_digest="1" * 64,
        mac="06:00:ac:10:00:02",
        parent=None if parent is None else f"{parent:012x}",
    )
    files = Files.of(context.paths, record.id)
    files.folder.mkdir(parents=True)
    files.state.write_bytes(b"state %d" % number)
    with files.memory.open("wb") as memory:
        memory.truncate(MEMORY_MIB << 20)
        for page, content in pages.items():
            os.pwrite(memory.fileno(), content * PAGE_SIZE, page * PAGE_SIZE)
    context.snapshots.add(record)
    return snapshots.sealed(context, record)


def pages(path: Path) -> dict[int, bytes]:
    """What a memory file holds, by page, zeros left out."""
    data = path.read_bytes()
    assert len(data) == MEMORY_MIB << 20
    starts = range(0, len(data), PAGE_SIZE)
    return {at // PAGE_SIZE: data[at : at + 1] for at in starts if any(data[at : at + PAGE_SIZE])}
