"""Back to a snapshot, in place: the engine is replaced, and all that makes the machine this one stays.

Until the old engine ends nothing has changed; afterwards the machine runs as it did when the snapshot was taken, or is
stopped. The store learns of the new engine last, so a machine whose rewind was killed half-way is one whose engine has
died, which the next firkin stops as any other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from firkin.agent.client import AgentConnection
from firkin.errors import AgentError, EngineError, FirkinError, HostError, UsageError
from firkin.host.lock import locked
from firkin.host.process import ProcessRef
from firkin.manager import fork, networks, reconcile
from firkin.manager.context import Context
from firkin.manager.fork import Fork
from firkin.manager.guest import SEED_BYTES
from firkin.manager.snapshot_files import Files
from firkin.manager.start import take
from firkin.net.plan import plan_link
from firkin.paths import VSOCK_SOCKET
from firkin.store.machines import MachineRecord, State
from firkin.store.snapshots import SnapshotRecord
from firkin.vmm import backend, console, process
from firkin.vmm.boot import API_SOCKET

HangUp = Callable[[AgentError], None]
OLD_ENDS = (API_SOCKET, VSOCK_SOCKET, console.INPUT, console.OUTPUT)


@dataclass(kw_only=True)
class Rewind(Fork):
    """One rewind under way."""

    hang_up: HangUp

    @property
    def own(self) -> bool:
        """Whether the snapshot is of this very machine, not of one that had its name before."""
        taken, record = self.snapshot, self.record
        same = taken.machine == record.name and taken.mac == self.leased().mac
        return same and taken.created_at >= record.created_at


def end_engine(rewind: Rewind) -> None:
    """Give up what the guest did since: who talks to it is told, and its engine makes room for another."""
    rewind.hang_up(AgentError(f"machine {rewind.record.name!r} was rewound: what ran in it is gone"))
    process.end(rewind.record.id)
    console.end(rewind.record.id, rewind.run)
    for name in OLD_ENDS:
        (rewind.run / name).unlink(missing_ok=True)


def start_engine(rewind: Rewind) -> None:
    """Spawn another; the journal has had it since the machine's start, whichever it is."""
    argv = backend.argv(rewind.record.engine, rewind.record.id, rewind.station.engine_log)
    rewind.engine = process.spawn(argv, rewind.station)


def take_identity(rewind: Rewind) -> None:
    """The machine's own snapshot knows who it is; one of its origin has to be told, as a fork is."""
    assert rewind.agent is not None  # reach_agent ran
    if rewind.own:
        rewind.agent.set_clock(seed=os.urandom(SEED_BYTES))
    else:
        fork.take_identity(rewind)


STEPS = (
    ("old engine ended", end_engine),
    ("engine spawned", start_engine),
    ("files", fork.write_files),
    ("snapshot loaded", fork.load),
    ("agent ready", fork.reach_agent),
    ("identity", take_identity),
)


def rewind(
    context: Context, machine_id: str, snapshot: SnapshotRecord, files: Files, hang_up: HangUp
) -> AgentConnection:
    """Bring a machine that is up back to a snapshot; answers a connection to its agent. `hang_up` is called once
    nothing keeps it from going.

    Raises:
        UsageError, HostError: it cannot be; the machine is as it was.
        EngineError: it failed; the machine was stopped.
    """
    with locked(context.machine_lock(machine_id)):
        record, old = _checked(context, machine_id, snapshot, files)
        network = networks.plan(context, record.network or "default")
        slot = context.leases.slot(machine_id)
        assert slot is not None  # a machine that is up has one
        under_way = Rewind(
            context=context,
            record=record,
            network=network,
            link=plan_link(network, slot),
            snapshot=snapshot,
            files=files,
            hang_up=hang_up,
        )
        try:
            take(under_way, STEPS)
            _write_down(under_way)
        except BaseException as error:
            if old.alive():
                raise  # nothing has happened yet
            _stop(under_way)
            if not isinstance(error, FirkinError):
                raise
            why = f"machine {record.name!r} could not be rewound, and was stopped: {error}"
            raise EngineError(why, hint=error.hint or f"firkin logs --engine {record.name}") from error
    assert under_way.agent is not None  # reach_agent ran
    return under_way.agent


def _checked(
    context: Context, machine_id: str, snapshot: SnapshotRecord, files: Files
) -> tuple[MachineRecord, ProcessRef]:
    """The machine and its engine; refuses what cannot go well, while nothing has happened."""
    record = context.machines.get(machine_id)
    if record is None or not record.up or record.process is None or not record.process.alive():
        name = machine_id if record is None else record.name
        raise UsageError(f"machine {name!r} is not running", hint=f"firkin fork {snapshot.name} starts another")
    if snapshot.machine != record.name and snapshot.id != record.snapshot:
        why = f"snapshot {snapshot.name!r} is of machine {snapshot.machine!r}, not of {record.name!r}"
        raise UsageError(why, hint=f"firkin fork {snapshot.name} starts a machine from it")
    if snapshot.engine != record.engine:
        raise UsageError(f"snapshot {snapshot.name!r} is of {snapshot.engine}, the machine runs on {record.engine}")
    for path in (files.state, files.memory, context.blobs.path(snapshot.image_digest)):
        if not path.is_file():
            raise HostError(f"{path}: missing", hint=f"firkin snapshot verify {snapshot.name}")
    return record, record.process


def _write_down(rewind: Rewind) -> None:
    engine, ours = rewind.spawned(), rewind.record.spec
    rewind.context.machines.update(
        rewind.record.id,
        state=State.RUNNING,
        spec=msgspec.structs.replace(rewind.snapshot.spec, name=ours.name, network=ours.network),
        snapshot=rewind.snapshot.id,
        pid=engine.pid,
        pid_started=engine.started,
        started_at=time.time(),
        timeline=rewind.timeline,
    )


def _stop(rewind: Rewind) -> None:
    if rewind.agent is not None:
        rewind.agent.close()
    reconcile.stop(rewind.context, rewind.record)
