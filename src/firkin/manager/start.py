"""What every start of a machine has in common, cold or from a snapshot: first steps, and the one way back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from firkin.agent.client import AgentConnection
from firkin.fcapi.config import VmConfig
from firkin.host.files import write_atomic
from firkin.host.lock import locked, try_lock
from firkin.host.process import ProcessRef
from firkin.manager import keys, networks, reconcile, ssh
from firkin.manager.changes import EngineUp, Folder, KeeperUp
from firkin.manager.context import Context
from firkin.manager.guest import Identity
from firkin.manager.machine import Machine
from firkin.net.plan import LinkPlan, NetworkPlan
from firkin.paths import ROOT
from firkin.progress import step
from firkin.store.machines import Lifetime, MachineRecord, State
from firkin.vmm import backend, boot
from firkin.vmm.process import Station, spawn


@dataclass(kw_only=True)
class Start:
    """One start under way: what it was given, and what the steps have added so far."""

    context: Context
    record: MachineRecord
    network: NetworkPlan
    began: float = field(default_factory=time.perf_counter)
    timeline: dict[str, float] = field(default_factory=dict)
    link: LinkPlan | None = None
    engine: ProcessRef | None = None
    agent: AgentConnection | None = None  # the machine's handle goes on with it
    cleanup: ExitStack = field(default_factory=ExitStack)  # what only the start needs

    @property
    def run(self) -> Path:
        return self.context.paths.machine_run(self.record.id)

    @property
    def home(self) -> Path:
        return self.context.paths.machine_home(self.record.id)

    @property
    def station(self) -> Station:
        return Station(
            netns=self.network.netns,
            run=self.run,
            console=self.context.console(self.record.id),
            engine_log=self.home / "engine.log",
            zygote=self.context.zygote,
        )

    def leased(self) -> LinkPlan:
        assert self.link is not None  # join_network ran
        return self.link

    def spawned(self) -> ProcessRef:
        assert self.engine is not None  # start_engine ran
        return self.engine

    def mark(self, phase: str) -> None:
        """Note when a phase ended, in milliseconds since the start began."""
        self.timeline[phase] = round((time.perf_counter() - self.began) * 1000, 1)


S = TypeVar("S", bound=Start)


def make_folders(start: Start) -> None:
    """Private folders for logs and for boot files."""
    start.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    start.station.engine_log.touch()
    start.context.ledger.do(start.record.id, Folder(str(start.run)))


def link_root(start: Start, image_digest: str) -> None:
    """Give the image the name by which this machine knows its disk."""
    (start.run / ROOT).unlink(missing_ok=True)  # a rewind may find another
    (start.run / ROOT).symlink_to(start.context.blobs.path(image_digest))


def join_network(start: Start) -> None:
    """Lease an address; namespace, bridge and tap."""
    start.link = networks.join(start.context, start.network, start.record.id)
    start.context.machines.update(start.record.id, address=str(start.link.guest.ip))


def start_engine(start: Start) -> None:
    """Spawn the VMM and its console's keeper; it starts up while the steps after this one work."""
    start.context.ledger.do(start.record.id, KeeperUp(start.record.id, str(start.run)))
    start.context.ledger.do(start.record.id, EngineUp(start.record.id))
    start.engine = spawn(backend.argv(start.record.engine, start.record.id, start.station.engine_log), start.station)
    start.context.machines.update(start.record.id, pid=start.engine.pid, pid_started=start.engine.started)


def write_config(start: Start, config: VmConfig) -> None:
    """The machine's config, for people to read."""
    write_atomic(start.run / "vm_config.json", boot.to_json(config) + "\n", mode=0o600)


def make_keys(start: Start) -> Identity:
    """Keys of its own for the guest's SSH server, which whoever logs in from here will know."""
    identity = keys.machine_identity(start.context.paths, start.home, start.record.name)
    write_atomic(start.home / ssh.KNOWN_HOSTS, keys.known_host(identity, start.record.name), mode=0o600)
    return identity


def carry_out(start: S, steps: Sequence[tuple[str, Callable[[S], None]]], *, outlives: bool) -> Machine:
    """Write the machine down, run the steps, answer its handle. Whatever fails, Ctrl-C too, undoes everything.

    Raises:
        NameTaken: nothing was touched.
    """
    context, record = start.context, start.record
    with locked(context.machine_lock(record.id)):
        session = try_lock(context.session_lock(record.id)) if record.lifetime is Lifetime.SESSION else None
        try:
            context.machines.add(record)
            take(start, steps)
            start.context.machines.update(
                record.id, state=State.RUNNING, started_at=time.time(), timeline=start.timeline
            )
        except BaseException:
            if start.agent is not None:
                start.agent.close()
            reconcile.remove(context, record)
            if session is not None:
                os.close(session)
            raise
    return Machine(context, record.id, session=session, outlives=outlives, agent=start.agent)


def take(start: S, steps: Sequence[tuple[str, Callable[[S], None]]]) -> None:
    """Go through the steps, and mark when each ended."""
    with start.cleanup:
        for phase, act in steps:
            with step(f"{start.record.name}: {phase}"):
                act(start)
            start.mark(phase)
