"""A handle on one pool, to await: the twin of `firkin.Pool`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from firkin.aio.machine import Machine
from firkin.aio.threads import in_thread, made, threaded
from firkin.manager import machine
from firkin.manager import pool as blocking
from firkin.store.machines import Lifetime
from firkin.store.pools import PoolRecord


class Pool:
    """One pool of the store. As a context manager it is removed at the end of its scope."""

    def __init__(self, pool: blocking.Pool) -> None:
        self.sync = pool
        self.id = pool.id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.shield(in_thread(self.sync.remove))

    async def claim(self, *, detach: bool = False) -> Machine:
        """As `firkin.Pool.claim`. Cancelled, it ends once the machine is removed again."""
        return Machine(await made(lambda: self.sync.claim(detach=detach), _remove))

    async def claim_as(self, lifetime: Lifetime, *, outlives: bool) -> Machine:
        """As `claim`, with a lifetime of one's choice."""
        return Machine(await made(lambda: self.sync.claim_as(lifetime, outlives=outlives), _remove))

    refill = threaded(blocking.Pool.refill)
    remove = threaded(blocking.Pool.remove)

    @property
    def record(self) -> PoolRecord:
        """The row as it is now.

        Raises:
            NotFound: the pool was removed.
        """
        return self.sync.record

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def ready(self) -> int:
        """How many machines wait to be claimed."""
        return self.sync.ready

    @property
    def filling(self) -> bool:
        """Whether a filler is at work."""
        return self.sync.filling

    @property
    def log(self) -> Path:
        """What the filler that was started last had to say: why there are fewer machines than there should be."""
        return self.sync.log


def _remove(made: machine.Machine) -> None:
    made.remove(force=True)
