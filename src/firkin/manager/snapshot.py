"""A handle on one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from firkin.errors import NotFound, UsageError
from firkin.manager.context import Context
from firkin.manager.snapshot_files import Files, Sizes, sizes
from firkin.store.machines import Lifetime
from firkin.store.snapshots import SnapshotRecord

if TYPE_CHECKING:
    from firkin.manager.machine import Machine


class Snapshot:
    """One snapshot of the store. As a context manager it is removed at the end of its scope."""

    def __init__(self, context: Context, snapshot_id: str) -> None:
        self._context = context
        self.id = snapshot_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    @property
    def record(self) -> SnapshotRecord:
        """The row as it is now.

        Raises:
            NotFound: the snapshot was removed.
        """
        record = self._context.snapshots.get(self.id)
        if record is None:
            raise NotFound("snapshot", self.id)
        return record

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def sizes(self) -> Sizes:
        """What it takes."""
        return sizes(Files.of(self._context.paths, self.id))

    def fork(self, n: int = 1, *, names: Sequence[str] = (), detach: bool = False) -> list[Machine]:
        """Make `n` machines that go on from where this snapshot was taken; see `Machine.fork`.

        Raises:
            InvalidSpec, NameTaken: it cannot be done; nothing was touched.
            HostError, EngineError, GuestError: a step failed; all forks were undone.
        """
        from firkin.manager import fork

        lifetime = Lifetime.KEPT if detach else Lifetime.SESSION
        return fork.fork_many(self._context, self.record, n, names=names, lifetime=lifetime, outlives=detach)

    def verify(self) -> list[str]:
        """What is wrong with its files and with those of the snapshots it is a difference from; empty if nothing is."""
        from firkin.manager import snapshots  # listing snapshots needs none of it

        return snapshots.verify(self._context, self.record)

    def export(self, path: Path, *, merge: bool = False) -> None:
        """Write it and those it is a difference from into one tar file, compressed if its name ends with .zst; with
        `merge` as one full snapshot.

        Raises:
            NoSpace, HostError: it cannot be written; nothing is left.
        """
        from firkin.manager.transport import export_to

        export_to(self._context, self.record, path, merge=merge)

    def remove(self) -> None:
        """Remove it with its files. Machines that were forked from it go on.

        Raises:
            UsageError: other snapshots are differences from it.
        """
        from firkin.manager import snapshots

        record = self._context.snapshots.get(self.id)
        if record is not None:
            snapshots.remove(self._context, record)


def find(context: Context, name: str) -> SnapshotRecord:
    """The snapshot of that name or id prefix.

    Raises:
        NotFound: there is none.
        UsageError: the prefix fits several.
    """
    found = context.snapshots.find(name)
    if not found:
        raise NotFound("snapshot", name, hint="firkin snapshot ls")
    if len(found) > 1:
        names = ", ".join(record.name for record in found)
        raise UsageError(f"{name!r} fits several snapshots: {names}", hint="give more of the id, or the name")
    return found[0]
