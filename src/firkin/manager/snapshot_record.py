"""What a snapshot will say of itself, known before its machine is held up."""

from __future__ import annotations

from pathlib import Path

import msgspec

from firkin.errors import InvalidSpec, NameTaken, UsageError
from firkin.fcapi.config import VmConfig
from firkin.manager.context import Context
from firkin.manager.machine import Machine
from firkin.paths import ROOT
from firkin.spec import NAME
from firkin.store.machines import MachineRecord
from firkin.store.snapshots import SnapshotRecord
from firkin.vmm.boot import API_SOCKET, Call


def check_name(context: Context, name: str) -> str:
    """A name that a new snapshot can have.

    Raises:
        InvalidSpec, NameTaken: it cannot.
    """
    if not NAME.fullmatch(name):
        hint = "use lower-case letters, digits and dashes, 63 at most, starting with a letter or digit"
        raise InvalidSpec(f"name: {name!r} is no name for a snapshot", hint=hint)
    if any(found.name == name for found in context.snapshots.find(name)):
        raise NameTaken(
            f"snapshot {name!r}: the name is taken", hint=f"firkin snapshot rm {name}, or choose another name"
        )
    return name


def describe(
    context: Context, machine: Machine, snapshot_id: str, name: str | None, template: str | None, *, diff: bool
) -> SnapshotRecord:
    """The row of a snapshot that is about to be taken.

    Raises:
        UsageError: the machine does not run, the name will not do, or there is nothing to be a difference from.
    """
    machine.process()
    of = machine.record
    kernel, image = _blobs(context, of)
    return SnapshotRecord(
        id=snapshot_id,
        name=check_name(context, name or f"{of.name[:50]}-{snapshot_id[:6]}"),
        machine=of.name,
        spec=of.spec,
        engine=of.engine,
        kernel_digest=kernel,
        image_digest=image,
        mac=machine.link.mac,
        sshd=machine.has_sshd,
        parent=_parent(context, of) if diff else None,
        origin=of.snapshot,
        template=template,
    )


def _blobs(context: Context, machine: MachineRecord) -> tuple[str, str]:
    """Digests of kernel and image: of those it runs, whatever goes by their names today."""
    if machine.snapshot and (origin := context.snapshots.get(machine.snapshot)):
        return origin.kernel_digest, origin.image_digest
    run = context.paths.machine_run(machine.id)
    from firkin.vmm.client import ApiClient  # a fork imports it while its engine starts

    with ApiClient(run / API_SOCKET) as api:
        config = msgspec.json.decode(api.call(Call("GET", "/vm/config", None)), type=VmConfig)
    return Path(config.boot_source.kernel_image_path).name, (run / ROOT).readlink().name


def _parent(context: Context, machine: MachineRecord) -> str:
    """The snapshot whose memory the machine has mapped: what it wrote since is known exactly."""
    hint = f"without --diff: firkin snapshot create {machine.name}"
    if machine.snapshot is None:
        why = "it was booted, not forked, so a difference would hold all its memory"
        raise UsageError(f"machine {machine.name!r}: {why}", hint=hint)
    if context.snapshots.get(machine.snapshot) is None:
        raise UsageError(f"machine {machine.name!r}: the snapshot that it was forked from is gone", hint=hint)
    return machine.snapshot
