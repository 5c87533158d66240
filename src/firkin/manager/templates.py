"""Templates: snapshots of machines that had just booted, left by `run` for itself, to fork from instead of booting.

A template's key is a hash over everything that shapes a boot, so a changed input has another key and finds no template.
What only the machine's identity shapes (name, address, keys) is left out: a fork gets its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import firkin
from firkin.agent.initrd import base_archive, render_config
from firkin.manager.context import Context
from firkin.manager.guest import guest_config
from firkin.net.plan import LinkPlan
from firkin.spec import MachineSpec
from firkin.store.images import Image
from firkin.store.kernels import Kernel
from firkin.store.snapshots import SnapshotRecord
from firkin.vmm import backend, boot

# Stands for whatever place a machine has: what a fork is told anew.
ANYWHERE = LinkPlan(
    network="", netns=None, bridge="", tap="", mac="06:00:00:00:00:00", gateway=IPv4Address(0),
    guest=IPv4Interface("0.0.0.0/24"),
)  # fmt: skip


def serves(spec: MachineSpec) -> bool:
    """Whether a machine like this may come from a template.

    A program or variables of the user's own are theirs: the program is to begin anew in each machine, and either may
    hold secrets, which have no business in a file that outlives the machine.
    """
    return not spec.command and not spec.env


def key(spec: MachineSpec, engine: str, kernel: Kernel, image: Image) -> str:
    """The same for two machines only if they boot alike."""
    parts = boot.Parts(kernel=Path(kernel.digest), root=Path(image.digest), tap=ANYWHERE.tap, mac=ANYWHERE.mac)
    guest = guest_config(spec, "any", image.config, image.filesystem, ANYWHERE, None)
    return _hash(
        firkin.__version__,
        engine,
        *_marks(backend.programs(engine)),
        boot.to_json(boot.vm_config(spec, parts)),
        kernel.modules_digest or "",
        render_config(replace(guest, seed=b"", machine_id=None)),
        base_archive(),
    )


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def _marks(programs: Iterable[str]) -> Iterable[str]:
    """What changes when a program is replaced: asking it for its version takes longer than a fork."""
    for program in programs:
        entry = Path(program).stat()
        yield f"{program} {entry.st_size} {entry.st_mtime_ns}"


def find(context: Context, wanted: str) -> SnapshotRecord | None:
    """The template of that key, noted as used now."""
    record = context.snapshots.template(wanted)
    if record is not None:
        context.snapshots.touch(record.id)
    return record
