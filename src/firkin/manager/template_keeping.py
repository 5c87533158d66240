"""How templates come and go: left by the first machine of their kind, removed when they take too much or fail."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from firkin.agent.messages import ExecRefused
from firkin.errors import ExecTimeout, FirkinError, UsageError
from firkin.host.lock import try_lock
from firkin.manager import background, snapshots
from firkin.manager.context import Context
from firkin.manager.machine import Machine
from firkin.manager.rehearsal import rehearse
from firkin.manager.snapshot_files import Files, sizes
from firkin.spec import MachineSpec
from firkin.store.machines import State
from firkin.store.snapshots import SnapshotRecord

log = logging.getLogger("firkin")

SETTLE_S = 120.0  # a busy host emulates slowly


def leave(context: Context, machine: Machine, key: str) -> None:
    """Make a template of a machine in which nobody has done anything yet; it stands still for that moment.

    Nobody waits for a template: one that another firkin is making is left to it, and what keeps one from being made is
    told to the log.
    """
    lock = try_lock(lock_path(context, key))
    if lock is None:
        return
    try:
        make(context, machine, key)
    except (FirkinError, OSError) as error:
        log.warning("no template was kept: %s", error)
    finally:
        os.close(lock)


def make(context: Context, machine: Machine, key: str) -> SnapshotRecord:
    """The same for somebody who waits for it and holds its lock.

    Raises:
        HostError, EngineError: it cannot be made.
    """
    if found := context.snapshots.template(key):
        return found
    rehearse(machine)
    made = snapshots.create(context, machine, name=f"template-{key[:12]}", template=key, seal=False)
    evict(context, keep=made.id)
    return made


def have_made(context: Context, spec: MachineSpec, key: str) -> None:
    """Start a process that makes the template, unless one is at it."""
    if not context.is_free(lock_path(context, key)):
        return
    name = f"template-{key[:12]}"
    named = msgspec.json.encode(msgspec.structs.replace(spec, name=name)).decode()
    background.start(context, "firkin.manager.template_maker", named, log=context.paths.home / "logs" / f"{name}.log")


def lock_path(context: Context, key: str) -> Path:
    """Held by who makes the template of that key."""
    return context.paths.locks / f"template-{key[:12]}"


def settle(machine: Machine, *, timeout_s: float = SETTLE_S) -> None:
    """Wait until systemd has started all that it starts. Of another init nobody can tell, and of one that never gets
    there a template is better than none."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        try:
            said = machine.exec("systemctl", "is-system-running", "--wait", timeout_s=left).stdout.strip()
        except (ExecRefused, ExecTimeout):
            return
        if said in (b"running", b"degraded", b"maintenance"):
            return
        time.sleep(0.1)  # it does not listen yet


def drop(context: Context, record: SnapshotRecord, why: FirkinError) -> None:
    """Forget a template from which no machine came."""
    log.warning("%s cannot be used: %s", record.name, why)
    with suppress(UsageError):  # a pool is of it, or a snapshot is a difference from it: their owner's to remove
        snapshots.remove(context, record)


def evict(context: Context, *, keep: str | None = None) -> None:
    """Remove what can never be used again, and those used longest ago until the rest fits in what settings allow."""
    taken = [(record, sizes(Files.of(context.paths, record.id)).disk) for record in reversed(templates(context))]
    excess = sum(size for _, size in taken) - context.settings.templates_mib * 2**20
    needed = {keep, *_needed(context)}
    for record, size in taken:
        if record.id not in needed and (excess > 0 or not _has_blobs(context, record)):
            snapshots.remove(context, record)
            excess -= size


def templates(context: Context) -> list[SnapshotRecord]:
    """The one used last comes first."""
    found = (record for record in context.snapshots.all() if record.template is not None)
    return sorted(found, key=lambda record: record.used_at, reverse=True)


def _needed(context: Context) -> Iterator[str]:
    """Those that machines have mapped, whose space would not come back, and those that something else is made of."""
    machines = (record for record in context.machines.all() if record.state is not State.STOPPED)
    yield from (record.snapshot for record in machines if record.snapshot)
    yield from (record.parent for record in context.snapshots.all() if record.parent)
    yield from (pool.snapshot for pool in context.pools.all())


def _has_blobs(context: Context, record: SnapshotRecord) -> bool:
    return all(context.blobs.path(digest).exists() for digest in (record.kernel_digest, record.image_digest))
