"""From a spec to a machine that answers: a list of steps, each of which says what it did; one way back for all."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from firkin.agent.hello import HelloListener
from firkin.agent.initrd import build_initrd
from firkin.errors import BootTimeout, GuestError
from firkin.host.files import write_atomic
from firkin.host.process import ProcessRef
from firkin.manager import keys, networks, ssh
from firkin.manager.changes import EngineUp, Folder, KeeperUp
from firkin.manager.context import Context
from firkin.manager.ending import complaint
from firkin.manager.guest import guest_config
from firkin.net.plan import LinkPlan, NetworkPlan
from firkin.paths import VSOCK_SOCKET
from firkin.progress import step
from firkin.spec import MachineSpec
from firkin.store.images import Image
from firkin.store.kernels import Kernel
from firkin.store.machines import Lifetime, MachineRecord, State
from firkin.vmm import backend, boot
from firkin.vmm.process import Station, open_api, spawn, tail


@dataclass(kw_only=True)
class Launch:
    """One boot under way: what it was given, and what the steps have added so far."""

    context: Context
    record: MachineRecord
    network: NetworkPlan
    kernel: Kernel
    image: Image
    began: float = field(default_factory=time.perf_counter)
    timeline: dict[str, float] = field(default_factory=dict)
    link: LinkPlan | None = None
    engine: ProcessRef | None = None
    listener: HelloListener | None = None
    cleanup: ExitStack = field(default_factory=ExitStack)  # what only the boot needs

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
        )

    def leased(self) -> LinkPlan:
        assert self.link is not None  # join_network ran
        return self.link

    def spawned(self) -> ProcessRef:
        assert self.engine is not None  # start_engine ran
        return self.engine

    def mark(self, phase: str) -> None:
        """Note when a phase ended, in milliseconds since the launch began."""
        self.timeline[phase] = round((time.perf_counter() - self.began) * 1000, 1)


def new_record(spec: MachineSpec, lifetime: Lifetime, engine: str, network: str) -> MachineRecord:
    machine_id = secrets.token_hex(6)
    name = spec.name or f"{spec.image.split(':')[0]}-{machine_id[:4]}"
    return MachineRecord(
        id=machine_id,
        name=name,
        state=State.STARTING,
        spec=spec,
        lifetime=lifetime,
        engine=engine,
        network=network,
    )


def make_folders(launch: Launch) -> None:
    """Private folders for logs and for boot files."""
    launch.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    launch.station.engine_log.touch()
    launch.context.ledger.do(launch.record.id, Folder(str(launch.run)))


def start_engine(launch: Launch) -> None:
    """Spawn the VMM and its console's keeper; it starts up while the steps after this one work."""
    launch.context.ledger.do(launch.record.id, KeeperUp(launch.record.id, str(launch.run)))
    launch.context.ledger.do(launch.record.id, EngineUp(launch.record.id))
    launch.engine = spawn(
        backend.argv(launch.record.engine, launch.record.id, launch.station.engine_log), launch.station
    )
    launch.context.machines.update(launch.record.id, pid=launch.engine.pid, pid_started=launch.engine.started)


def join_network(launch: Launch) -> None:
    """Lease an address; namespace, bridge and tap."""
    launch.link = networks.join(launch.context, launch.network, launch.record.id)
    launch.context.machines.update(launch.record.id, address=str(launch.link.guest.ip))


def write_boot_files(launch: Launch) -> None:
    """The initramfs with this machine's identity, and its config for people to read."""
    record, image = launch.record, launch.image
    identity = None
    if image.config.sshd:
        identity = keys.machine_identity(launch.context.paths, launch.home, record.name)
        write_atomic(launch.home / ssh.KNOWN_HOSTS, keys.known_host(identity, record.name), mode=0o600)
    guest = guest_config(record.spec, record.name, image.config, image.filesystem, launch.leased(), identity)
    modules_digest = launch.kernel.modules_digest
    modules = launch.context.blobs.path(modules_digest).read_bytes() if modules_digest else None
    write_atomic(launch.run / boot.INITRD, build_initrd(guest, modules), mode=0o600)


def configure_and_start(launch: Launch) -> None:
    """Every API call up to InstanceStart."""
    blobs, link = launch.context.blobs, launch.leased()
    parts = boot.Parts(
        kernel=blobs.path(launch.kernel.digest), root=blobs.path(launch.image.digest), tap=link.tap, mac=link.mac
    )
    config = boot.vm_config(launch.record.spec, parts)
    write_atomic(launch.run / "vm_config.json", boot.to_json(config) + "\n", mode=0o600)
    launch.listener = launch.cleanup.enter_context(HelloListener(launch.run / VSOCK_SOCKET))
    with open_api(launch.spawned(), launch.station) as api:
        for call in boot.calls(config):
            api.call(call)


def await_agent(launch: Launch) -> None:
    """Wait for the agent's hello: only that says that the guest booted."""
    assert launch.listener is not None  # configure_and_start ran
    timeout_s = launch.record.spec.boot_timeout_s
    try:
        hello = launch.listener.wait(timeout_s, launch.spawned().alive)
    except GuestError as error:
        launch.station.console.await_last_words(launch.spawned())
        console, engine = tail(launch.station.console.log), tail(launch.station.engine_log)
        if why := complaint(console):
            hint = f"firkin image inspect {launch.image.reference} shows what it runs"
            raise BootTimeout(f"{error}: {why}\nconsole:\n{console}", hint=hint) from error
        raise BootTimeout(f"{error}\nconsole:\n{console}\nVMM:\n{engine}", hint="firkin doctor") from error
    launch.timeline |= {
        "guest: init": hello.init_ms,
        "guest: root mounted": hello.root_ms,
        "guest: network up": hello.network_ms,
        "guest: agent ready": hello.ready_ms,
    }


Step = Callable[[Launch], None]

# namespace → engine → everything that can be done while it starts → boot
BOOT: tuple[tuple[str, Step], ...] = (
    ("folders", make_folders),
    ("network", join_network),
    ("engine spawned", start_engine),
    ("boot files", write_boot_files),
    ("instance started", configure_and_start),
    ("agent ready", await_agent),
)


def carry_out(launch: Launch) -> MachineRecord:
    """Run the steps. The caller holds the machine's lock and undoes everything if one of them fails."""
    with launch.cleanup:
        for phase, act in BOOT:
            with step(f"{launch.record.name}: {phase}"):
                act(launch)
            launch.mark(phase)
    return launch.context.machines.update(
        launch.record.id, state=State.RUNNING, started_at=time.time(), timeline=launch.timeline
    )
