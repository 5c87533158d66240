"""Snapshots into this home, out of files that `transport` wrote, or is said to have written: every byte is checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from firkin.agent.members import ArchiveReader, Member, MemberKind
from firkin.errors import BadArchive, HostError, NameTaken, ProgramFailed, UsageError
from firkin.host import sparse, zstd
from firkin.host.memory import total_mib
from firkin.manager import snapshots
from firkin.manager.changes import Folder
from firkin.manager.context import Context
from firkin.manager.portable import MANIFEST, MOST_BYTES, Link, Manifest, to_record
from firkin.manager.snapshot_files import Files, digests
from firkin.manager.snapshot_record import check_name
from firkin.manager.snapshots import making, owner_of
from firkin.manager.transport import emulator
from firkin.store.snapshots import SnapshotRecord

MOST_STATE_BYTES = 64 << 20
READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Imported:
    """What came, and what stands in the way of forking it here."""

    record: SnapshotRecord
    notes: tuple[str, ...]


def import_from(context: Context, path: Path, *, name: str | None = None) -> Imported:
    """Bring in what `export_to` wrote: all of the chain or nothing. Links that are here already are shared.

    Raises:
        UsageError: this is no such file, it was altered, or its name is taken.
        HostError: it cannot be read, or there is no zstd.
        NoSpace: the disk is full; nothing is left.
    """
    try:
        with _pieces(path) as pieces, snapshots.room(context.paths.home):
            return _receive(context, ArchiveReader(pieces), name)
    except (BadArchive, ProgramFailed) as error:
        why = error.why if isinstance(error, BadArchive) else str(error)
        raise UsageError(
            f"{path}: no snapshot that firkin exported, or damaged: {why}", hint="export it anew"
        ) from error


@contextmanager
def _pieces(path: Path) -> Iterator[Iterator[bytes]]:
    try:
        file = path.open("rb", buffering=0)  # zstd goes on where we are
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}", hint=f"ls -l {path}") from error
    with file:
        packed = file.read(len(zstd.MAGIC)) == zstd.MAGIC
        file.seek(0)
        if packed:
            with zstd.unpacking(file) as pieces:
                yield pieces
        else:
            yield iter(lambda: file.read(READ_BYTES), b"")


def _receive(context: Context, reader: ArchiveReader, name: str | None) -> Imported:
    members = reader.members()
    manifest = _manifest(reader, next(members, None))
    wanted = {f"{link.id}/{file}".encode(): (link, file) for link in manifest.links for file in ("state", "memory")}
    with ExitStack() as stack:
        for snapshot_id in sorted(link.id for link in manifest.links):  # in one order, whoever comes at the same time
            stack.enter_context(making(context, snapshot_id))
        records = _records(context, manifest.links, name)
        new = {record.id: _folder(context, record.id) for record in records}
        for entry in members:
            link, file = _expected(wanted, entry)
            if link.id in new:
                _store(reader, entry, new[link.id] / file)
        if wanted:
            raise BadArchive(f"{next(iter(wanted)).decode()} is missing")
        for record in records:
            _check(context, record)
        with context.db.transaction():
            for record in records:
                context.snapshots.add(record)
                context.ledger.keep_all(owner_of(record.id))
    return Imported(records[-1], _notes(context, manifest))


def _manifest(reader: ArchiveReader, first: Member | None) -> Manifest:
    if first is None or first.parts != (MANIFEST,) or first.kind is not MemberKind.FILE or first.size > MOST_BYTES:
        raise BadArchive(f"it does not begin with {MANIFEST.decode()}")
    text = b"".join(bytes(piece) for extent in first.extents for piece in reader.data(extent))
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadArchive(f"{MANIFEST.decode()}: {error}") from error
    for link in manifest.links:
        link.spec.check(host_memory_mib=total_mib())
    if len({link.id for link in manifest.links}) < len(manifest.links):
        raise BadArchive("two snapshots of one id")
    if len({(link.memory_bytes, link.engine) for link in manifest.links}) > 1:
        raise BadArchive("a chain of different machines")
    return manifest


def _folder(context: Context, snapshot_id: str) -> Path:
    """An empty folder for files of which there is no row yet."""
    folder = Folder(str(Files.of(context.paths, snapshot_id).folder))
    folder.undo()
    context.ledger.do(owner_of(snapshot_id), folder)
    return Path(folder.path)


def _records(context: Context, links: tuple[Link, ...], name: str | None) -> list[SnapshotRecord]:
    """Rows for those that are not here yet, oldest first; the last one is never here."""
    *parents, last = links
    records = []
    parent: str | None = None
    for link in parents:
        here = context.snapshots.get(link.id)
        if here is None:
            records.append(to_record(link, _free_name(context, link), parent))
        elif here.parent != parent or snapshots.sealed(context, here).digests != msgspec.structs.asdict(link.digests):
            raise BadArchive(f"{link.name}: another snapshot has its id")
        parent = link.id
    if here := context.snapshots.get(last.id):
        raise NameTaken(f"snapshot {last.name!r} is here already", hint=f"firkin snapshot inspect {here.name}")
    return [*records, to_record(last, check_name(context, name or last.name), parent)]


def _free_name(context: Context, link: Link) -> str:
    """The name that a parent had, or one like it: nobody asked for it."""
    taken = any(found.name == link.name for found in context.snapshots.find(link.name))
    return check_name(context, f"{link.name[:50]}-{link.id[:6]}" if taken else link.name)


def _expected(wanted: dict[bytes, tuple[Link, str]], entry: Member) -> tuple[Link, str]:
    """Which file of which snapshot this is. Each comes once, of the size that it must have."""
    found = wanted.pop(b"/".join(entry.parts), None)
    if found is None or entry.kind is not MemberKind.FILE:
        raise BadArchive(f"{b'/'.join(entry.parts)[:200]!r} has no place in it")
    link, file = found
    if (entry.size != link.memory_bytes) if file == "memory" else (entry.size > MOST_STATE_BYTES):
        raise BadArchive(f"{link.name}: {file} of {entry.size} bytes")
    return found


def _store(reader: ArchiveReader, entry: Member, path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, entry.size)
        for extent in entry.extents:
            at = extent.offset
            for piece in reader.data(extent):
                sparse.write_all(fd, piece, at)
                at += len(piece)
        os.fsync(fd)
    finally:
        os.close(fd)


def _check(context: Context, record: SnapshotRecord) -> None:
    found = digests(Files.of(context.paths, record.id))
    for file, digest in record.digests.items():
        if found[file] != digest:
            raise BadArchive(f"{record.name}: {file} was altered")


def _notes(context: Context, manifest: Manifest) -> tuple[str, ...]:
    """Why the last link may not load here. Only a load tells for sure."""
    link, here = manifest.links[-1], emulator()
    root = context.blobs.path(link.image_digest)
    notes = []
    if not root.exists():
        notes.append(f"image {link.spec.image} is not here in this very version: it belongs at {root}")
    if manifest.emulator != here:
        notes.append(f"made with {manifest.emulator or 'no QEMU'}, here is {here or 'none'}: its state may be refused")
    return tuple(notes)
