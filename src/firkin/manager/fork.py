"""From a snapshot to machines that answer, each with an identity of its own: the steps of a fork, and many at once."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from firkin.agent.client import connect
from firkin.errors import AgentError, EngineError, InvalidSpec, NameTaken
from firkin.manager import networks, snapshots
from firkin.manager.context import Context
from firkin.manager.guest import Identity as Keys
from firkin.manager.identity import fork_identity
from firkin.manager.machine import Machine
from firkin.manager.snapshot_files import Files
from firkin.manager.start import (
    Start,
    carry_out,
    join_network,
    link_root,
    make_folders,
    make_keys,
    start_engine,
    write_config,
)
from firkin.paths import VSOCK_SOCKET
from firkin.spec import NAME, MachineSpec
from firkin.store.images import ImageConfig
from firkin.store.machines import Lifetime, MachineRecord, State
from firkin.store.snapshots import SnapshotRecord
from firkin.vmm import boot, restore
from firkin.vmm.process import open_api, tail

AGENT_TIMEOUT_S = 30.0
RETRY_S = 0.002
CLOCK_SLACK_S = 0.04
CLOCK_TRIES = 5
LOOK_S = 5.0  # how often to see whether the engine lives
AT_ONCE = 2 * (os.cpu_count() or 1)  # starts under way: one waits for the host while the other works


@dataclass(kw_only=True)
class Fork(Start):
    """One fork under way."""

    snapshot: SnapshotRecord
    files: Files
    keys: Future[Keys] | None = None


def write_files(fork: Fork) -> None:
    """Its config for people to read; and its keys, which others than us make while the engine works."""
    blobs, link, snapshot = fork.context.blobs, fork.leased(), fork.snapshot
    parts = boot.Parts(
        kernel=blobs.path(snapshot.kernel_digest), root=blobs.path(snapshot.image_digest), tap=link.tap, mac=link.mac
    )
    write_config(fork, boot.vm_config(fork.record.spec, parts))
    if snapshot.sshd:
        thread = fork.cleanup.enter_context(ThreadPoolExecutor(1, thread_name_prefix="firkin-keys"))
        fork.keys = thread.submit(make_keys, fork)


def load(fork: Fork) -> None:
    """Have the engine restore the snapshot on this machine's tap and socket, and let the guest run."""
    link_root(fork, fork.snapshot.image_digest)
    with open_api(fork.spawned(), fork.station) as api:
        for call in restore.calls(fork.files.state, fork.files.memory, tap=fork.leased().tap):
            api.call(call)


def reach_agent(fork: Fork) -> None:
    """Connect to the agent, which was there when the snapshot was taken: only its word says that the guest runs."""
    deadline = time.monotonic() + AGENT_TIMEOUT_S
    while fork.agent is None:
        try:
            fork.agent = connect(fork.run / VSOCK_SOCKET, min(LOOK_S, deadline - time.monotonic()))
        except AgentError as error:  # a restored guest resets what came in before it knew that it was restored
            if time.monotonic() >= deadline or not fork.spawned().alive():
                raise EngineError(f"{error}\nVMM:\n{tail(fork.station.engine_log)}", hint="firkin doctor") from error
            time.sleep(RETRY_S)


def take_identity(fork: Fork) -> None:
    """Nothing of ours runs in the guest until it is another machine than its parent and its siblings."""
    assert fork.agent is not None  # reach_agent ran
    image = fork.context.images.of_digest(fork.snapshot.image_digest)
    config = image.config if image is not None else ImageConfig(sshd=fork.snapshot.sshd)
    keys = None if fork.keys is None else fork.keys.result()
    identity = fork_identity(fork.record, fork.snapshot.mac, fork.leased(), config, keys)
    began = time.monotonic()
    fork.agent.identify(identity, AGENT_TIMEOUT_S)
    # The clock is behind by what the word took on its way; on a busy host that shows, and it is told again.
    for _ in range(CLOCK_TRIES):
        if time.monotonic() - began < CLOCK_SLACK_S:
            return
        began = time.monotonic()
        fork.agent.set_clock(AGENT_TIMEOUT_S)


STEPS = (
    ("folders", make_folders),
    ("network", join_network),
    ("engine spawned", start_engine),
    ("files", write_files),
    ("snapshot loaded", load),
    ("agent ready", reach_agent),
    ("identity", take_identity),
)


def fork(
    context: Context,
    snapshot: SnapshotRecord,
    *,
    name: str | None = None,
    lifetime: Lifetime = Lifetime.KEPT,
    outlives: bool = False,
    files: Files | None = None,
    spec: MachineSpec | None = None,
) -> Machine:
    """Start a machine from a snapshot and wait until its agent answers. On any failure everything is undone.

    `spec` is what the machine goes by where the snapshot is a template: one that boots to the same.

    Raises:
        NameTaken: nothing was touched.
        HostError, EngineError, GuestError: a step failed.
    """
    record = _new_record(snapshot, name, lifetime, spec or snapshot.spec)
    under_way = Fork(
        context=context,
        record=record,
        network=networks.plan(context, record.network or "default"),
        snapshot=snapshot,
        files=files or snapshots.materialize(context, snapshot),
    )
    return carry_out(under_way, STEPS, outlives=outlives)


def fork_many(
    context: Context,
    snapshot: SnapshotRecord,
    count: int,
    *,
    names: Sequence[str] = (),
    lifetime: Lifetime = Lifetime.KEPT,
    outlives: bool = False,
    files: Files | None = None,
) -> list[Machine]:
    """Start `count` machines from a snapshot, several at once; all of them are there in the end, or none.

    Raises:
        InvalidSpec, NameTaken: nothing was touched.
        HostError, EngineError, GuestError: one failed.
    """
    called = _names(context, count, names)
    files = files or snapshots.materialize(context, snapshot)

    def one(name: str | None) -> Machine:
        return fork(context, snapshot, name=name, lifetime=lifetime, outlives=outlives, files=files)

    if count == 1:
        return [one(called[0])]
    with ThreadPoolExecutor(min(count, AT_ONCE), thread_name_prefix="firkin-fork") as threads:
        starts = [threads.submit(one, name) for name in called]
        try:
            wait(starts, return_when=FIRST_EXCEPTION)
            return [start.result() for start in starts if start.done()]
        except BaseException:
            _undo(threads, starts)
            raise


def fork_machine(
    context: Context,
    machine: Machine,
    count: int,
    *,
    names: Sequence[str] = (),
    lifetime: Lifetime = Lifetime.KEPT,
    outlives: bool = False,
) -> list[Machine]:
    """Fork a machine as it is now. What it was saved into goes when all forks have it mapped.

    Raises:
        UsageError: it does not run. Else as `fork_many`.
    """
    _names(context, count, names)  # before the machine is held up
    with snapshots.passing(context, machine) as (snapshot, files):
        return fork_many(context, snapshot, count, names=names, lifetime=lifetime, outlives=outlives, files=files)


def _undo(threads: ThreadPoolExecutor, starts: list[Future[Machine]]) -> None:
    """Remove those that succeeded, once none is under way."""
    for start in starts:
        start.cancel()
    wait(starts)
    made = [start.result() for start in starts if not start.cancelled() and start.exception() is None]
    list(threads.map(lambda machine: machine.remove(force=True), made))


def _new_record(snapshot: SnapshotRecord, name: str | None, lifetime: Lifetime, spec: MachineSpec) -> MachineRecord:
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


def _names(context: Context, count: int, names: Sequence[str]) -> Sequence[str | None]:
    """A name for each, None where it is to be made up."""
    if count < 1:
        raise InvalidSpec(f"fork: {count} forks", hint="ask for one at least")
    if not names:
        return [None] * count
    if isinstance(names, str) or len(set(names)) != count:
        raise InvalidSpec(f"fork: {len(set(names))} names for {count} forks", hint="give each its own, or none")
    for name in names:
        if not NAME.fullmatch(name):
            hint = "use lower-case letters, digits and dashes, 63 at most, starting with a letter or digit"
            raise InvalidSpec(f"name: {name!r} is not a host name", hint=hint)
        if any(found.name == name for found in context.machines.find(name)):
            raise NameTaken(f"machine {name!r}: the name is taken", hint="firkin ls; choose another name")
    return names
