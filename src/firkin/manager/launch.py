"""From a spec to a machine that answers: the steps of a cold boot."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from firkin.agent.hello import HelloListener
from firkin.agent.initrd import build_initrd
from firkin.errors import BootTimeout, GuestError
from firkin.host.files import write_atomic
from firkin.manager.ending import complaint
from firkin.manager.guest import guest_config
from firkin.manager.start import Start, join_network, link_root, make_folders, make_keys, start_engine, write_config
from firkin.paths import ROOT, VSOCK_SOCKET
from firkin.spec import MachineSpec
from firkin.store.images import Image
from firkin.store.kernels import Kernel
from firkin.store.machines import Lifetime, MachineRecord, State
from firkin.vmm import boot
from firkin.vmm.process import open_api, tail


@dataclass(kw_only=True)
class Launch(Start):
    """One boot under way."""

    kernel: Kernel
    image: Image
    listener: HelloListener | None = None


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


def write_boot_files(launch: Launch) -> None:
    """The initramfs with this machine's identity, and its config for people to read."""
    record, image = launch.record, launch.image
    identity = make_keys(launch) if image.config.sshd else None
    guest = guest_config(record.spec, record.name, image.config, image.filesystem, launch.leased(), identity)
    modules_digest = launch.kernel.modules_digest
    modules = launch.context.blobs.path(modules_digest).read_bytes() if modules_digest else None
    write_atomic(launch.run / boot.INITRD, build_initrd(guest, modules), mode=0o600)


def configure_and_start(launch: Launch) -> None:
    """Every API call up to InstanceStart."""
    link = launch.leased()
    link_root(launch, launch.image.digest)
    kernel = launch.context.blobs.path(launch.kernel.digest)
    parts = boot.Parts(kernel=kernel, root=Path(ROOT), tap=link.tap, mac=link.mac)
    config = boot.vm_config(launch.record.spec, parts)
    write_config(launch, config)
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


# namespace → engine → everything that can be done while it starts → boot
BOOT = (
    ("folders", make_folders),
    ("network", join_network),
    ("engine spawned", start_engine),
    ("boot files", write_boot_files),
    ("instance started", configure_and_start),
    ("agent ready", await_agent),
)
