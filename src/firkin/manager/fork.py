"""From a snapshot to a machine that answers, with an identity of its own: the steps of a fork."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from firkin.agent.client import connect
from firkin.errors import AgentError, EngineError
from firkin.manager import networks
from firkin.manager.context import Context
from firkin.manager.machine import Machine
from firkin.manager.start import Start, carry_out, join_network, make_folders, start_engine
from firkin.paths import VSOCK_SOCKET
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime, MachineRecord, State
from firkin.store.snapshots import SnapshotRecord
from firkin.vmm import restore
from firkin.vmm.process import open_api, tail

AGENT_TIMEOUT_S = 30.0
RETRY_S = 0.002


@dataclass(kw_only=True)
class Fork(Start):
    """One fork under way."""

    snapshot: SnapshotRecord
    files: restore.Files


def new_record(
    snapshot: SnapshotRecord, name: str | None, lifetime: Lifetime, spec: MachineSpec | None = None
) -> MachineRecord:
    spec = spec or snapshot.spec
    machine_id = secrets.token_hex(6)
    base = spec.name or spec.image.split(":")[0]
    return MachineRecord(
        id=machine_id,
        name=name or f"{base[:54]}-{machine_id[:8]}",
        state=State.STARTING,
        spec=spec,
        lifetime=lifetime,
        engine=snapshot.engine,
        network=spec.network,
        snapshot=snapshot.id,
    )


def load(fork: Fork) -> None:
    """Have the engine restore the snapshot on this machine's tap and socket, and let the guest run."""
    with open_api(fork.spawned(), fork.station) as api:
        for call in restore.calls(fork.files, fork.leased().tap):
            api.call(call)


def reach_agent(fork: Fork) -> None:
    """Connect to the agent, which was there when the snapshot was taken: only its word says that the guest runs."""
    deadline = time.monotonic() + AGENT_TIMEOUT_S
    while fork.agent is None:
        try:
            fork.agent = connect(fork.run / VSOCK_SOCKET, deadline - time.monotonic())
        except AgentError as error:  # a restored guest resets what came in before it knew that it was restored
            if time.monotonic() >= deadline or not fork.spawned().alive():
                raise EngineError(f"{error}\nVMM:\n{tail(fork.station.engine_log)}", hint="firkin doctor") from error
            time.sleep(RETRY_S)


STEPS = (
    ("folders", make_folders),
    ("network", join_network),
    ("engine spawned", start_engine),
    ("snapshot loaded", load),
    ("agent ready", reach_agent),
)


def fork(
    context: Context,
    snapshot: SnapshotRecord,
    *,
    name: str | None = None,
    lifetime: Lifetime = Lifetime.KEPT,
    outlives: bool = False,
    spec: MachineSpec | None = None,
) -> Machine:
    """Start a machine from a snapshot and wait until its agent answers. On any failure everything is undone.

    `spec` is what the machine goes by where the snapshot is a template: one that boots to the same.

    Raises:
        NameTaken: nothing was touched.
        HostError, EngineError, GuestError: a step failed.
    """
    record = new_record(snapshot, name, lifetime, spec)
    folder = context.paths.snapshot_home(snapshot.id)
    under_way = Fork(
        context=context,
        record=record,
        network=networks.plan(context, record.network or "default"),
        snapshot=snapshot,
        files=restore.Files(state=folder / "state", memory=folder / "memory"),
    )
    return carry_out(under_way, STEPS, outlives=outlives)
