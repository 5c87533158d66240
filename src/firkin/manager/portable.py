"""What an exported snapshot says of itself, in its first member: all that a row holds, for a home that knows nothing.

Read from anybody, so each value is one that could have been written by us, or the file is refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from firkin.spec import MachineSpec
from firkin.store.snapshots import SnapshotRecord

MANIFEST = b"snapshot.json"
MOST_LINKS = 64
MOST_BYTES = 1 << 20

# `\Z`, since `$` lets a newline pass.
Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{12}\Z")]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Mac = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")]
Line = Annotated[str, Meta(max_length=4096)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Digests(_Strict, frozen=True, kw_only=True):
    """sha256 of the two files."""

    state: Sha256
    memory: Sha256


class Link(_Strict, frozen=True, kw_only=True):
    """One snapshot of a chain; its parent is the one before."""

    id: Id
    name: Name
    machine: Name
    spec: MachineSpec
    engine: Literal["firecracker", "firkin-vmm"]
    kernel_digest: Sha256
    image_digest: Sha256
    mac: Mac
    sshd: bool
    digests: Digests
    created_at: Annotated[float, Meta(ge=0, le=1e12)]

    @property
    def memory_bytes(self) -> int:
        return self.spec.memory_mib << 20


class Manifest(_Strict, frozen=True, kw_only=True):
    """The first member: the chain from the full snapshot to the one that was exported, and where it was made."""

    format: Literal["firkin snapshot 1"] = "firkin snapshot 1"
    emulator: Line = ""  # as QEMU names itself there: another one does not read its state
    links: Annotated[tuple[Link, ...], Meta(min_length=1, max_length=MOST_LINKS)]


def to_link(record: SnapshotRecord) -> Link:
    """What of a row goes along."""
    kept = {key: getattr(record, key) for key in Link.__struct_fields__ if key != "digests"}
    return Link(**kept, digests=Digests(**record.digests))


def to_record(link: Link, name: str, parent: str | None) -> SnapshotRecord:
    """The row that it becomes here."""
    values = msgspec.structs.asdict(link) | {"name": name, "digests": msgspec.structs.asdict(link.digests)}
    return SnapshotRecord(**values, parent=parent)
