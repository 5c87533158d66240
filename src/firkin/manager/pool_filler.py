"""The process that fills a pool: it forks, pauses and enters machines until the pool is full, and ends.

One is at work at a time, by the pool's lock. Killed at any point it leaves nothing that the next firkin does not heal:
the machine under way is of its session until, in one write, it is the pool's. What it says goes to the pool's log.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from firkin.agent.messages import ExecRefused
from firkin.errors import ExecTimeout, FirkinError, HostError
from firkin.fcapi.instance import Vm, VmState
from firkin.host.lock import locked
from firkin.host.memory import available_mib
from firkin.manager import background
from firkin.manager.context import Context
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.manager.pool import fork_of, lock_path
from firkin.store.machines import Lifetime
from firkin.store.pools import PoolRecord
from firkin.vmm.boot import API_SOCKET, Call
from firkin.vmm.client import ApiClient

WARM_TIMEOUT_S = 30.0


def fill(context: Context, pool_id: str) -> None:
    """Fill the pool; whoever is at it goes first.

    Raises:
        HostError: memory is short. HostError, EngineError, GuestError: a fork failed.
    """
    # Asked again without the lock: who claimed while we held it relied on us.
    while _wanting(context, pool_id):
        with locked(lock_path(context, pool_id)):
            while pool := _wanting(context, pool_id):
                _add(context, pool)


def _wanting(context: Context, pool_id: str) -> PoolRecord | None:
    """The pool, if it is there and not full."""
    pool = context.pools.get(pool_id)
    return pool if pool and len(context.machines.members(pool_id)) < pool.size else None


def _add(context: Context, pool: PoolRecord) -> None:
    _check_memory(context, pool)
    machine = fork_of(context, pool, Lifetime.SESSION)
    try:
        _warm(machine)
        with ApiClient(machine.run_folder / API_SOCKET) as api:
            api.call(Call("PATCH", "/vm", Vm(state=VmState.PAUSED)))
        with locked(context.machine_lock(machine.id)):
            machine.part()  # before anybody can claim it: its session is the claimer's then
            entered = context.machines.enter(machine.id, pool.id)
    except BaseException:
        machine.remove(force=True)
        raise
    if not entered:  # the pool was removed meanwhile
        machine.remove(force=True)


def _warm(machine: Machine) -> None:
    """Run one program and let go: what an emulated processor runs for the first time takes ten times as long."""
    with suppress(ExecRefused, ExecTimeout):  # an image may be without it; most of the way is warm then too
        machine.exec("true", timeout_s=WARM_TIMEOUT_S)
    machine.close()


def _check_memory(context: Context, pool: PoolRecord) -> None:
    """A machine that is claimed may write to all of its memory."""
    snapshot = context.snapshots.get(pool.snapshot)
    needed, there = snapshot.spec.memory_mib if snapshot else 0, available_mib()
    if there < needed:
        raise HostError(f"{there} MiB of memory are left, and one machine may take {needed} MiB", hint="free -m")


def main() -> None:
    try:
        with Firkin(background.settings()) as firkin:
            fill(firkin.context, sys.argv[2])
    except FirkinError as error:
        sys.exit(background.last_words(error))


if __name__ == "__main__":
    main()
