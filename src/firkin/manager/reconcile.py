"""The store's story against the host's: finish or undo what died half-way. Cheap enough to run before every command."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress

from firkin.errors import EngineError
from firkin.host.lock import try_lock
from firkin.manager.context import Context
from firkin.paths import METRICS
from firkin.store.machines import Lifetime, MachineRecord, State

FROZEN = "frozen"  # kind of the change, told without loading all kinds
MAX_METRICS_BYTES = 1 << 20  # three hours


def reconcile(context: Context) -> None:
    """Heal every machine that nobody is working on, then take down networks without machines and sweep workspaces."""
    for record in context.machines.all():
        lock = try_lock(context.machine_lock(record.id))
        if lock is None:
            continue  # another firkin is at work on it right now
        try:
            fresh = context.machines.get(record.id)
            if fresh is not None:
                _heal(context, fresh)
        finally:
            os.close(lock)
    _heal_orphans(context)
    context.blobs.sweep()


def _heal(context: Context, record: MachineRecord) -> None:
    """Bring one machine, whose lock the caller holds, to a state that is true."""
    if record.state in (State.CREATED, State.STARTING):
        remove(context, record)  # its maker died before it answered: nobody knows of it
    elif record.state is State.READY and _is_lost(context, record):
        remove(context, record)
    elif record.up and _should_end(context, record):
        stop(context, record)
    elif record.up or record.state is State.READY:
        _thaw(context, record)
        _trim_metrics(context, record)
        if record.process is not None:
            context.console(record.id).keep(record.process)


def _thaw(context: Context, record: MachineRecord) -> None:
    """Let it go on if whoever held it still died, before or after it did."""
    if not context.journal.holds(record.id, FROZEN):
        return
    from firkin.manager import pausing

    with suppress(EngineError):  # it hangs: whoever wants something of it is told, and the next command tries again
        pausing.thaw(context, record)


def _trim_metrics(context: Context, record: MachineRecord) -> None:
    """Its engine writes on whether or not somebody reads."""
    path = context.paths.machine_run(record.id) / METRICS
    if path.exists() and path.stat().st_blocks * 512 > MAX_METRICS_BYTES:
        from firkin.vmm import metrics

        with suppress(EngineError):  # whoever asks for them is told
            metrics.add_up(path)


def _is_lost(context: Context, record: MachineRecord) -> bool:
    """A pool's member whose engine or pool is gone."""
    dead = record.process is None or not record.process.alive()
    return dead or record.pool is None or context.pools.get(record.pool) is None


def _should_end(context: Context, record: MachineRecord) -> bool:
    if record.process is None or not record.process.alive():
        return True
    return record.lifetime is Lifetime.SESSION and context.is_free(context.session_lock(record.id))


def stop(context: Context, record: MachineRecord) -> None:
    """Undo all that a running machine holds of the host; remove it too, unless it is to be kept.

    The caller holds the machine's lock. The engine is killed if it still runs.
    """
    release(context, record)
    if record.lifetime is Lifetime.KEPT:
        context.machines.update(record.id, state=State.STOPPED, pid=None, pid_started=None, stopped_at=time.time())
    else:
        forget(context, record)


def remove(context: Context, record: MachineRecord) -> None:
    """Undo, and forget the machine with its logs. The caller holds the machine's lock."""
    release(context, record)
    forget(context, record)


def release(context: Context, record: MachineRecord) -> None:
    """Give back the host: process, tap, lease, folders; the network too if this was its last machine."""
    context.ledger.undo_all(record.id)
    context.leases.release(record.id)
    if record.network is not None:
        _sweep_network(context, record.network)


def forget(context: Context, record: MachineRecord) -> None:
    """Remove the row and the logs. Lock files stay: removing one that another process waits on would split the lock."""
    shutil.rmtree(context.paths.machine_home(record.id), ignore_errors=True)
    context.machines.remove(record.id)


def _heal_orphans(context: Context) -> None:
    """Undo changes whose owner has no row: a process died between striking the row and nothing else."""
    known = {record.id for record in context.machines.all()}
    for owner in context.journal.owners():
        if owner.startswith("network:"):
            _sweep_network(context, owner.removeprefix("network:"))
        elif owner.startswith("snapshot:"):
            _heal_snapshot(context, owner)
        elif owner not in known:
            context.ledger.undo_all(owner)


def _heal_snapshot(context: Context, owner: str) -> None:
    """Undo what whoever made, merged or removed a snapshot did not finish; its machine goes on."""
    lock = try_lock(context.snapshot_lock(owner.removeprefix("snapshot:")))
    if lock is not None:
        try:
            context.ledger.undo_all(owner)
        finally:
            os.close(lock)


def _sweep_network(context: Context, network: str) -> None:
    if context.leases.count(network) == 0:  # looked at again under its lock; most commands find it in use
        from firkin.manager import networks

        networks.sweep(context, network)
