"""`run`, `get` and `Firkin` for asyncio. Boots and images are made in threads."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from firkin.aio.machine import Machine
from firkin.aio.pools import Pool
from firkin.aio.snapshot import Snapshot
from firkin.aio.threads import made, threaded
from firkin.manager import firkin as blocking
from firkin.manager import machine, opening
from firkin.manager import pool as blocking_pool
from firkin.settings import Settings
from firkin.spec import Environment, MachineSpec
from firkin.store.machines import Lifetime


async def run(
    image: str | MachineSpec = "debian",
    *,
    name: str | None = None,
    vcpus: int = 1,
    memory_mib: int = 256,
    kernel: str | None = None,
    network: str = "default",
    command: Sequence[str] = (),
    env: Environment = (),
    boot_args: str = "",
    boot_timeout_s: float = 60.0,
    detach: bool = False,
    settings: Settings | None = None,
) -> Machine:
    """As `firkin.run`. Cancelled, it ends once what was begun is undone."""
    boot = functools.partial(
        opening.run, image, name=name, vcpus=vcpus, memory_mib=memory_mib, kernel=kernel, network=network,
        command=command, env=env, boot_args=boot_args, boot_timeout_s=boot_timeout_s, detach=detach, settings=settings,
    )  # fmt: skip
    return Machine(await made(boot, _remove))


async def get(name: str, *, settings: Settings | None = None) -> Machine:
    """As `firkin.get`."""
    return await Firkin(settings).machine(name)


class Firkin:
    """All machines of one home; the twin of `firkin.Firkin`, opened when it is first used."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings

    @functools.cached_property
    def sync(self) -> blocking.Firkin:
        """The same home for threads."""
        return blocking.Firkin(self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def machine(self, name: str) -> Machine:
        """The machine of that name or id prefix.

        Raises:
            NotFound: there is none.
            UsageError: the prefix fits several.
        """
        return Machine(await self._machine(name))

    async def run(self, spec: MachineSpec, *, lifetime: Lifetime = Lifetime.KEPT, outlives: bool = False) -> Machine:
        """As `firkin.Firkin.run`. Cancelled, it ends once what was begun is undone."""
        return Machine(await made(lambda: self.sync.run(spec, lifetime=lifetime, outlives=outlives), _remove))

    async def snapshot(self, name: str) -> Snapshot:
        """The snapshot of that name or id prefix.

        Raises:
            NotFound: there is none.
            UsageError: the prefix fits several.
        """
        return Snapshot(await self._snapshot(name))

    async def pool(self, name: str) -> Pool:
        """The pool of that name.

        Raises:
            NotFound: there is none.
        """
        return Pool(await self._pool(name))

    async def create_pool(self, name: str, of: MachineSpec | Snapshot, *, size: int) -> Pool:
        """As `firkin.Firkin.create_pool`. Cancelled, it ends once the pool is removed again."""
        source = of.sync if isinstance(of, Snapshot) else of
        return Pool(await made(lambda: self.sync.create_pool(name, source, size=size), blocking_pool.Pool.remove))

    records = threaded(blocking.Firkin.records)
    pools = threaded(blocking.Firkin.pools)
    snapshots = threaded(blocking.Firkin.snapshots)
    engine = threaded(blocking.Firkin.engine)
    kernel = threaded(blocking.Firkin.kernel)
    image = threaded(blocking.Firkin.image)
    close = threaded(blocking.Firkin.close)
    _machine = threaded(blocking.Firkin.machine)
    _snapshot = threaded(blocking.Firkin.snapshot)
    _pool = threaded(blocking.Firkin.pool)


def _remove(made: machine.Machine) -> None:
    made.remove(force=True)
