"""The entry point: holds settings and store, hands out machines."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from firkin import settings as settings_module
from firkin.errors import NotFound, UsageError
from firkin.manager import reconcile
from firkin.manager.context import Context
from firkin.settings import Settings
from firkin.spec import MachineSpec
from firkin.store.images import Image
from firkin.store.kernels import Kernel
from firkin.store.machines import Lifetime, MachineRecord
from firkin.store.pools import PoolRecord
from firkin.store.snapshots import SnapshotRecord

if TYPE_CHECKING:
    from firkin.manager.machine import Machine
    from firkin.manager.pool import Pool
    from firkin.manager.snapshot import Snapshot


class Firkin:
    """All machines of one home. Opening it heals what an earlier process left half-done."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.context = Context(settings or settings_module.load())
        reconcile.reconcile(self.context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the store. Machines go on."""
        self.context.close()

    def records(self) -> list[MachineRecord]:
        """All machines, oldest first."""
        return self.context.machines.all()

    def machine(self, name: str) -> Machine:
        """The machine of that name or id prefix.

        Raises:
            NotFound: there is none.
            UsageError: the prefix fits several.
        """
        from firkin.manager.machine import Machine

        found = self.context.machines.find(name)
        if not found:
            raise NotFound("machine", name, hint="firkin ls")
        if len(found) > 1:
            names = ", ".join(record.name for record in found)
            raise UsageError(f"{name!r} fits several machines: {names}", hint="give more of the id, or the name")
        return Machine(self.context, found[0].id, outlives=True)

    def snapshots(self) -> list[SnapshotRecord]:
        """All snapshots that somebody took, oldest first: templates are firkin's own."""
        return [record for record in self.context.snapshots.all() if record.template is None]

    def snapshot(self, name: str) -> Snapshot:
        """The snapshot of that name or id prefix.

        Raises:
            NotFound: there is none.
            UsageError: the prefix fits several.
        """
        from firkin.manager.snapshot import Snapshot, find

        return Snapshot(self.context, find(self.context, name).id)

    def engine(self) -> str:
        """Which VMM this host gets: `firecracker` or `firkin-vmm`."""
        from firkin.vmm import backend

        return backend.choose(self.context.settings.engine, self._verdict)

    def _verdict(self) -> str:
        from firkin.manager.doctor import chosen_engine

        return chosen_engine(self.context.paths)

    def kernel(self, name: str | None = None) -> Kernel:
        """A kernel by name, provided on first use."""
        from firkin.kernel import ensure

        return ensure(
            name or self.context.settings.kernel, self.context.kernels, self.context.blobs, self.context.paths
        )

    def image(self, reference: str | None = None) -> Image:
        """An image by name or name:tag, built on first use."""
        from firkin.image import ensure

        return ensure(
            reference or self.context.settings.image, self.context.images, self.context.blobs, self.context.paths
        )

    def run(self, spec: MachineSpec, *, lifetime: Lifetime = Lifetime.KEPT, outlives: bool = False) -> Machine:
        """Start a machine and wait until its agent answers. One that `outlives` its handle is not removed by `with`.

        It is forked from the template of its kind; the first of its kind boots, and leaves one (docs/forks.md).

        On any failure, Ctrl-C included, everything is undone before the error leaves.

        Raises:
            InvalidSpec, NotFound, NameTaken: the request cannot be met; nothing was touched.
            HostError, EngineError, GuestError: a step failed.
        """
        from firkin.manager import running  # listing machines needs none of it

        return running.order(self, spec).carry_out(lifetime, outlives=outlives)

    def pools(self) -> list[PoolRecord]:
        """All pools, oldest first."""
        return self.context.pools.all()

    def pool(self, name: str) -> Pool:
        """The pool of that name.

        Raises:
            NotFound: there is none.
        """
        from firkin.manager import pool

        return pool.find(self.context, name)

    def create_pool(self, name: str, of: MachineSpec | Snapshot, *, size: int) -> Pool:
        """Hold `size` machines ready: forks of a snapshot, or of a machine that boots for it now. They come in the
        background.

        Raises:
            InvalidSpec, NotFound, NameTaken: the request cannot be met; nothing was touched.
            HostError, EngineError, GuestError: the machine that was to be forked failed.
        """
        from firkin.manager import pool, running

        pool.check(self.context, name, size)
        if isinstance(of, MachineSpec):
            return pool.create(self.context, name, running.order(self, of).template(), size=size, network=of.network)
        return pool.create(self.context, name, of.record, size=size)
