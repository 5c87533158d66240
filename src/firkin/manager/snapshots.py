"""Snapshots: taken of a machine that hardly notices, checked, removed; each is whole or not there.

What is made for one stands in the journal under `snapshot:ID` until its row is there, and its lock is held meanwhile:
whoever finds the lock free and the journal not empty undoes the rest.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from firkin.errors import ApiFault, NoSpace, NotFound
from firkin.fcapi.snapshot import SnapshotCreate, SnapshotType
from firkin.host.lock import locked
from firkin.manager import pausing
from firkin.manager.changes import Folder, Saving
from firkin.manager.context import Context
from firkin.manager.machine import Machine
from firkin.manager.snapshot_files import Files, check_pages, digests, merge, passing_folder
from firkin.manager.snapshot_record import describe
from firkin.store.snapshots import SnapshotRecord
from firkin.vmm.boot import API_SOCKET, Call

# Memory is written at the disk's pace; slower than this is no disk.
SLOWEST_MIB_PER_S = 8
PATIENCE_S = 60.0


def create(
    context: Context,
    machine: Machine,
    *,
    name: str | None = None,
    diff: bool = False,
    template: str | None = None,
    seal: bool = True,
) -> SnapshotRecord:
    """Save a running or paused machine; one that ran stands still for that moment only.

    A `diff` holds what a fork wrote since it was forked; the snapshot it came from is its parent. Without `seal` the
    digests of the files are left for later: they take longer than the pause.

    Raises:
        UsageError: the machine does not run, the name will not do, or there is nothing to be a difference from.
        NoSpace: the disk is full; nothing is left, and the machine goes on.
        EngineError: the VMM refused; likewise.
    """
    snapshot_id = secrets.token_hex(6)
    with locked(context.machine_lock(machine.id)), making(context, snapshot_id):
        record = describe(context, machine, snapshot_id, name, template, diff=diff)
        _save(context, machine, record, Files.of(context.paths, snapshot_id), diff=diff)
        with context.db.transaction():
            context.snapshots.add(record)
            context.ledger.keep_all(owner_of(snapshot_id))
    machine.keep_time()
    return [sealed(context, link) for link in chain(context, record)][-1] if seal else record


@contextmanager
def passing(context: Context, machine: Machine) -> Iterator[tuple[SnapshotRecord, Files]]:
    """A snapshot for this scope alone, which the store never lists; forks made in the scope go on after it.

    Raises:
        UsageError, NoSpace, EngineError: as `create`.
    """
    snapshot_id = secrets.token_hex(6)
    with making(context, snapshot_id):
        with locked(context.machine_lock(machine.id)):
            record = describe(context, machine, snapshot_id, None, None, diff=False)
            files = Files.within(passing_folder(context.paths, snapshot_id, record.spec.memory_mib))
            _save(context, machine, record, files, diff=False)
            context.ledger.drop(owner_of(snapshot_id), Saving)
        try:
            yield record, files
        finally:
            machine.keep_time()  # after the scope, which is in a hurry


def owner_of(snapshot_id: str) -> str:
    """Under which name a snapshot's changes stand in the journal."""
    return f"snapshot:{snapshot_id}"


@contextmanager
def making(context: Context, snapshot_id: str) -> Iterator[None]:
    """Hold a snapshot's lock; what stands in its journal at the end, Ctrl-C included, is undone."""
    with locked(context.snapshot_lock(snapshot_id)):
        try:
            yield
        finally:
            context.ledger.undo_all(owner_of(snapshot_id))


def _save(context: Context, machine: Machine, record: SnapshotRecord, files: Files, *, diff: bool) -> None:
    owner = owner_of(record.id)
    context.ledger.do(owner, Folder(str(files.folder)))
    if diff:
        check_pages(files.folder)
    body = SnapshotCreate(
        snapshot_type=SnapshotType.DIFF if diff else SnapshotType.FULL,
        snapshot_path=str(files.state),
        mem_file_path=str(files.memory),
    )
    context.ledger.do(owner, Saving(str(machine.run_folder)))
    from firkin.vmm.client import ApiClient  # a fork imports it while its engine starts

    with ApiClient(machine.run_folder / API_SOCKET, timeout_s=_patience_s(record)) as api:
        api.info()  # connects while the guest still runs
        with pausing.held(context, machine.record):
            try:
                api.call(Call("PUT", "/snapshot/create", body))
            except ApiFault as error:
                raise _told(context, error) from error


def _patience_s(record: SnapshotRecord) -> float:
    return PATIENCE_S + record.spec.memory_mib / SLOWEST_MIB_PER_S


def _told(context: Context, error: ApiFault) -> Exception:
    if any(sign in error.fault_message for sign in ("No space left", "quota exceeded")):
        return _full(context.paths.home)
    return error


def sealed(context: Context, record: SnapshotRecord) -> SnapshotRecord:
    """The same with the digests of its files, taken now if they never were."""
    if record.digests:
        return record
    found = digests(Files.of(context.paths, record.id))
    context.snapshots.seal(record.id, found)
    return msgspec.structs.replace(record, digests=found)


def remove(context: Context, record: SnapshotRecord) -> None:
    """Forget a snapshot and its files. Machines that were forked from it go on; removing twice is fine.

    Raises:
        UsageError: other snapshots are differences from it.
    """
    with making(context, record.id), context.db.transaction():
        context.snapshots.remove(record.id)
        # It is there: written down only to be undone, by us now or by the next firkin.
        context.ledger.do(owner_of(record.id), Folder(str(Files.of(context.paths, record.id).folder)))
    _drop_image(context, record)


def _drop_image(context: Context, record: SnapshotRecord) -> None:
    """An image that was removed or built anew stays on the disk for its snapshots, and for forks that may be forked."""
    named = context.images.of_digest(record.image_digest) is not None
    needed = record.image_digest in context.snapshots.image_digests()
    forked = any(machine.snapshot == record.id for machine in context.machines.all())
    if record.template is None and not (named or needed or forked):
        context.blobs.path(record.image_digest).unlink(missing_ok=True)


def materialize(context: Context, record: SnapshotRecord) -> Files:
    """What a machine is loaded from. A difference is merged with all that it differs from when this is first asked.

    Raises:
        NotFound: it was removed meanwhile.
        NoSpace: the disk is full.
    """
    files = Files.of(context.paths, record.id)
    if record.parent is None:
        return files
    if not files.whole.exists():
        with making(context, record.id), room(context.paths.home):
            _merge(context, record, files)
    return Files(files.state, files.whole)


def _merge(context: Context, record: SnapshotRecord, files: Files) -> None:
    if context.snapshots.get(record.id) is None:
        raise NotFound("snapshot", record.name)
    if files.whole.exists():
        return  # whoever held the lock before us made it
    memories: list[Path] = []
    for link in chain(context, record):
        own = Files.of(context.paths, link.id)
        memories = [own.whole] if own.whole.exists() else [*memories, own.memory]
    draft = files.folder / "draft"
    context.ledger.do(owner_of(record.id), Folder(str(draft)))
    merge(memories[0], memories[1:], draft / "whole")
    (draft / "whole").replace(files.whole)


@contextmanager
def room(where: Path) -> Iterator[None]:
    """A full disk is told as such."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(where) from error


def _full(where: Path) -> NoSpace:
    hint = "free some space (firkin snapshot ls), or choose another place"
    return NoSpace(f"{where}: disk full; nothing was left behind", hint=hint)


def verify(context: Context, record: SnapshotRecord) -> list[str]:
    """What is wrong with a snapshot and those it needs; empty if nothing is."""
    wrong = []
    for link in chain(context, record):
        files = Files.of(context.paths, link.id)
        missing = [path.name for path in (files.state, files.memory) if not path.is_file()]
        if missing:
            wrong += [f"{link.name}: {name} is missing" for name in missing]
        elif not link.digests:
            wrong.append(f"{link.name}: no digests were taken")
        else:
            now = digests(files)
            wrong += [
                f"{link.name}: {name} was altered" for name in link.digests if now.get(name) != link.digests[name]
            ]
    return wrong


def chain(context: Context, record: SnapshotRecord) -> list[SnapshotRecord]:
    """The snapshots that make up one, from the full one to itself."""
    links = [record]
    while (parent := links[0].parent) is not None:
        above = context.snapshots.get(parent)
        assert above is not None  # the store refuses to let a parent go
        links.insert(0, above)
    return links
