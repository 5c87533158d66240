"""Templates: snapshots of machines that had just booted, left by `run` for itself, to fork from instead of booting.

A template's key is a hash over everything that shapes a boot, so a changed input has another key and finds no template.
What only the machine's identity shapes (name, address, keys) is left out: a fork gets its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import firkin
from firkin.agent.initrd import base_archive, render_config
from firkin.errors import EngineError, FirkinError, GuestError
from firkin.host.lock import try_lock
from firkin.manager import snapshots
from firkin.manager.context import Context
from firkin.manager.guest import guest_config
from firkin.manager.machine import Machine
from firkin.manager.snapshot_files import Files, sizes
from firkin.net.plan import LinkPlan
from firkin.spec import MachineSpec
from firkin.store.images import Image
from firkin.store.kernels import Kernel
from firkin.store.snapshots import SnapshotRecord
from firkin.vmm import backend, boot

log = logging.getLogger("firkin")

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
    guest = replace(guest_config(spec, "any", image.config, image.filesystem, ANYWHERE, None), seed=b"")
    return _hash(
        firkin.__version__,
        engine,
        *_marks(backend.programs(engine)),
        boot.to_json(boot.vm_config(spec, parts)),
        kernel.modules_digest or "",
        render_config(guest),
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
        entry = os.stat(program)
        yield f"{program} {entry.st_size} {entry.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates of one home."""

    context: Context

    def find(self, wanted: str) -> SnapshotRecord | None:
        """The template of that key, noted as used now."""
        record = self.context.snapshots.template(wanted)
        if record is not None:
            self.context.snapshots.touch(record.id)
        return record

    def leave(self, machine: Machine, wanted: str) -> SnapshotRecord | None:
        """Make a template of a machine in which nobody has done anything yet; it stands still for that moment.

        Nobody waits for a template: one that another firkin is making is left to it, and one that cannot be made is
        told to the log.
        """
        lock = try_lock(self.context.paths.locks / f"template-{wanted[:16]}")
        if lock is None:
            return None
        try:
            if self.context.snapshots.template(wanted) is not None:
                return None
            name = f"template-{wanted[:12]}"
            made = snapshots.create(self.context, machine, name=name, template=wanted, seal=False)
            self.evict(keep=made.id)
        except FirkinError as error:
            log.warning("no template was kept: %s", error)
            return None
        finally:
            os.close(lock)
        return made

    def drop(self, record: SnapshotRecord, why: Exception) -> None:
        """Forget a template from which no machine came."""
        log.warning("template %s is dropped: %s", record.name, why)
        snapshots.remove(self.context, record)

    def all(self) -> list[SnapshotRecord]:
        """The one used last comes first."""
        found = (record for record in self.context.snapshots.all() if record.template is not None)
        return sorted(found, key=lambda record: record.used_at, reverse=True)

    def evict(self, *, keep: str) -> None:
        """Remove those used longest ago, until the rest takes no more than the settings allow."""
        room = self.context.settings.templates_mib * 2**20
        needed = {keep, *self._needed()}
        for record in self.all():
            room -= sizes(Files.of(self.context.paths, record.id)).disk
            if room < 0 and record.id not in needed:
                snapshots.remove(self.context, record)

    def _needed(self) -> Iterable[str]:
        """Those that give back nothing, or that something else is made of."""
        yield from (record.snapshot for record in self.context.machines.all() if record.snapshot)
        yield from (record.parent for record in self.context.snapshots.all() if record.parent)
        yield from (pool.snapshot for pool in self.context.pools.all())


UNUSABLE = (EngineError, GuestError)  # what a template that cannot be loaded, or whose guest is not well, ends in
