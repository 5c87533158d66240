"""Pools: machines forked beforehand and held paused, so that a claim is one row of the store and one call to an engine.

A member is a machine like any other, complete with address, name and keys of its own; only its guest stands still. Its
row says whose it is until somebody claims it. What was claimed a filler replaces (`pool_filler`), a process that lives
no longer than there is something to fill.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from firkin.agent.client import AgentConnection, connect
from firkin.errors import EngineError, GuestError, HostError, InvalidSpec, NameTaken, NotFound
from firkin.fcapi.instance import Vm, VmState
from firkin.host.lock import locked, try_lock
from firkin.manager import background, reconcile
from firkin.manager.context import Context
from firkin.manager.machine import Machine
from firkin.paths import VSOCK_SOCKET
from firkin.spec import NAME
from firkin.store.machines import Lifetime, MachineRecord, State
from firkin.store.pools import PoolRecord
from firkin.store.snapshots import SnapshotRecord
from firkin.vmm.boot import API_SOCKET, Call
from firkin.vmm.client import ApiClient

log = logging.getLogger("firkin")

WAKE_TIMEOUT_S = 10.0
MAX_SIZE = 1000


def check(context: Context, name: str, size: int) -> None:
    """Refuse a pool that cannot be, before anything is made for it.

    Raises:
        InvalidSpec, NameTaken: it cannot.
    """
    if not NAME.fullmatch(name):
        hint = "use lower-case letters, digits and dashes, 63 at most, starting with a letter or digit"
        raise InvalidSpec(f"name: {name!r} is no name for a pool", hint=hint)
    if not 1 <= size <= MAX_SIZE:
        raise InvalidSpec(f"size: {size} is not within 1 and {MAX_SIZE}", hint="--size 4")
    if context.pools.named(name) is not None:
        raise NameTaken(f"pool {name!r}: the name is taken", hint=f"firkin pool rm {name}, or choose another name")


def create(context: Context, name: str, snapshot: SnapshotRecord, *, size: int, network: str | None = None) -> Pool:
    """Make a pool of forks of a snapshot, and begin to fill it.

    Raises:
        InvalidSpec, NameTaken: nothing was touched.
    """
    check(context, name, size)
    network = network or snapshot.spec.network
    record = PoolRecord(id=secrets.token_hex(6), name=name, size=size, snapshot=snapshot.id, network=network)
    context.pools.add(record)
    pool = Pool(context, record.id)
    pool.refill()
    return pool


def find(context: Context, name: str) -> Pool:
    """The pool of that name.

    Raises:
        NotFound: there is none.
    """
    record = context.pools.named(name)
    if record is None:
        raise NotFound("pool", name, hint="firkin pool ls")
    return Pool(context, record.id)


class Pool:
    """One pool of the store, for any number of threads and processes. As a context manager it is removed at the end of
    its scope."""

    def __init__(self, context: Context, pool_id: str) -> None:
        self._context = context
        self.id = pool_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    @property
    def record(self) -> PoolRecord:
        """The row as it is now.

        Raises:
            NotFound: the pool was removed.
        """
        record = self._context.pools.get(self.id)
        if record is None:
            raise NotFound("pool", self.id, hint="firkin pool ls")
        return record

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def ready(self) -> int:
        """How many machines wait to be claimed."""
        return len(self._context.machines.members(self.id))

    @property
    def filling(self) -> bool:
        """Whether a filler is at work."""
        return not self._context.is_free(lock_path(self._context, self.id))

    @property
    def log(self) -> Path:
        """What the filler that was started last had to say: why there are fewer machines than there should be."""
        return log_path(self._context, self.record)

    def claim(self, *, detach: bool = False) -> Machine:
        """A machine of one's own: the one that waits longest, or a fresh fork when none waits.

        It is removed at the end of its `with`, and in any case when this process ends; with `detach` it outlives both.

        Raises:
            NotFound: the pool was removed.
            HostError, EngineError, GuestError: none waits, and a fork failed.
        """
        lifetime = Lifetime.KEPT if detach else Lifetime.SESSION
        return self.claim_as(lifetime, outlives=detach)

    def claim_as(self, lifetime: Lifetime, *, outlives: bool) -> Machine:
        """As `claim`, with a lifetime of one's choice."""
        record = self.record
        machine = self._take_one(lifetime, outlives=outlives)
        try:
            self.refill()
        except BaseException:  # Ctrl-C: nobody gets to know of the machine
            if machine is not None:
                machine.remove(force=True)
            raise
        return machine or fork_of(self._context, record, lifetime, outlives=outlives)

    def _take_one(self, lifetime: Lifetime, *, outlives: bool) -> Machine | None:
        for member in self._context.machines.members(self.id):
            if machine := _take(self._context, member, lifetime, outlives=outlives):
                return machine
        return None

    def refill(self) -> None:
        """Have a filler replace what was claimed, unless one is at work."""
        record = self._context.pools.get(self.id)
        if record is None or self.filling or self.ready >= record.size:
            return
        try:
            background.start(
                self._context, "firkin.manager.pool_filler", "--pool", self.id, log=log_path(self._context, record)
            )
        except OSError as error:  # the next claim tries again; this one has what it wants
            log.warning("pool %s is not filled: %s", record.name, error)

    def remove(self) -> None:
        """Forget the pool and remove the machines that wait in it; those that were claimed go on."""
        record = self._context.pools.get(self.id)
        if record is None:
            return
        self._context.pools.remove(self.id)
        with locked(lock_path(self._context, self.id)):  # a filler ends with the machine it is making
            for member in self._context.machines.members(self.id):
                self._remove(member.id)
            log_path(self._context, record).unlink(missing_ok=True)

    def _remove(self, machine_id: str) -> None:
        with locked(self._context.machine_lock(machine_id)):
            member = self._context.machines.get(machine_id)
            if member is not None and member.pool == self.id:  # not claimed while we came
                reconcile.remove(self._context, member)


def lock_path(context: Context, pool_id: str) -> Path:
    """Held while somebody fills the pool."""
    return context.paths.locks / f"pool-{pool_id}"


def log_path(context: Context, pool: PoolRecord) -> Path:
    return context.paths.home / "logs" / f"pool-{pool.id}.log"


def fork_of(context: Context, pool: PoolRecord, lifetime: Lifetime, *, outlives: bool = False) -> Machine:
    """A fresh machine like those of the pool."""
    from firkin.manager.fork import fork

    snapshot = context.snapshots.get(pool.snapshot)
    assert snapshot is not None  # the store refuses to let it go
    spec = msgspec.structs.replace(snapshot.spec, name=None, network=pool.network)
    name = f"{pool.name[:54]}-{secrets.token_hex(4)}"
    return fork(context, snapshot, name=name, spec=spec, lifetime=lifetime, outlives=outlives)


def _take(context: Context, member: MachineRecord, lifetime: Lifetime, *, outlives: bool) -> Machine | None:
    """Claim a member and wake it. None if somebody else has it, or if it does not wake: it is removed then."""
    with ExitStack() as undo:
        lock = try_lock(context.machine_lock(member.id))
        if lock is None:
            return None  # claimed by another, or looked at by a firkin that starts
        undo.callback(os.close, lock)
        session = None
        if lifetime is Lifetime.SESSION:
            session = try_lock(context.session_lock(member.id))
            assert session is not None  # nobody's yet
            undo.callback(os.close, session)
        if not context.machines.claim(member.id, lifetime):
            return None
        undo.callback(reconcile.remove, context, member)
        try:
            agent = _wake(context.paths.machine_run(member.id))
        except (HostError, EngineError, GuestError):
            return None
        context.machines.update(member.id, state=State.RUNNING, started_at=time.time())
        undo.pop_all()
    os.close(lock)
    return Machine(context, member.id, session=session, outlives=outlives, agent=agent)


def _wake(run: Path) -> AgentConnection:
    """Let the guest run, at the time that it is."""
    with ApiClient(run / API_SOCKET, timeout_s=WAKE_TIMEOUT_S) as api:
        api.call(Call("PATCH", "/vm", Vm(state=VmState.RESUMED)))
    agent = connect(run / VSOCK_SOCKET, WAKE_TIMEOUT_S)
    agent.set_clock()
    return agent
