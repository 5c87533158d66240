"""Verbs on snapshots: create, ls, inspect, rm, verify, export, import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from firkin.cli import report
from firkin.cli.output import ago, print_json, print_table, printable, size
from firkin.errors import FirkinError, HostError
from firkin.manager.context import Context
from firkin.manager.firkin import Firkin
from firkin.manager.snapshot import Snapshot
from firkin.manager.snapshot_files import Files, sizes
from firkin.store.snapshots import SnapshotRecord

NAMES = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.group()
def snapshot() -> None:
    """Machines at one instant: devices, memory and layer."""


@snapshot.command()
@click.argument("machine", metavar="MACHINE")
@click.option("--name", help="What to call it; else after the machine.")
@click.option("--diff", is_flag=True, help="Only what this fork wrote since it was forked.")
def create(machine: str, name: str | None, diff: bool) -> None:
    """Save a machine as it is now; one that runs goes on."""
    with Firkin() as firkin:
        made = firkin.machine(machine).snapshot(name, diff=diff)
        click.echo(f"{made.name} {size(made.sizes.disk)}")


@snapshot.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--templates", is_flag=True, help="Those that `firkin run` made for itself instead.")
def ls(as_json: bool, quiet: bool, templates: bool) -> None:
    """List snapshots."""
    with Firkin() as firkin:
        records = _templates(firkin.context) if templates else firkin.snapshots()
        if as_json:
            print_json([described(firkin.context, record) for record in records])
        elif quiet:
            for record in records:
                click.echo(record.name)
        else:
            titles = ("NAME", "ID", "MACHINE", "IMAGE", "DISK", "MEMORY", "PARENT", "FORKS", "CREATED")
            print_table(titles, [_row(firkin.context, record) for record in records])


def _templates(context: Context) -> list[SnapshotRecord]:
    from firkin.manager.template_keeping import templates  # it makes them too, which takes most of the manager

    return templates(context)


def _row(context: Context, record: SnapshotRecord) -> tuple[object, ...]:
    taken = sizes(Files.of(context.paths, record.id))
    parent = context.snapshots.get(record.parent) if record.parent else None
    forks = len(_forks(context, record))
    return (
        record.name, record.id, record.machine, record.spec.image, size(taken.disk), f"{record.spec.memory_mib} MiB",
        parent.name if parent else "-", forks or "-", ago(record.created_at),
    )  # fmt: skip


def _forks(context: Context, record: SnapshotRecord) -> list[str]:
    return [machine.name for machine in context.machines.all() if machine.snapshot == record.id]


@snapshot.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as always.")
def inspect(name: str, as_json: bool) -> None:  # noqa: ARG001 - every listing takes --json; this one knows no other form
    """Print all that is known of a snapshot, as JSON."""
    with Firkin() as firkin:
        print_json(described(firkin.context, firkin.snapshot(name).record))


def described(context: Context, record: SnapshotRecord) -> dict[str, Any]:
    """The row, what it takes, and who shares its memory: snapshots that are differences from it, and forks."""
    files = Files.of(context.paths, record.id)
    taken = sizes(files)
    row: dict[str, Any] = msgspec.to_builtins(record)
    return row | {
        "children": [child.name for child in context.snapshots.children(record.id)],
        "forks": _forks(context, record),
        "apparent_bytes": taken.apparent,
        "disk_bytes": taken.disk,
        "files": {"state": str(files.state), "memory": str(files.memory)},
    }


@snapshot.command()
@NAMES
def rm(names: tuple[str, ...]) -> int:
    """Remove snapshots; machines that were forked from them go on."""
    return _each(names, Snapshot.remove)


@snapshot.command()
@NAMES
def verify(names: tuple[str, ...]) -> int:
    """Compare the files of snapshots with their digests."""
    return _each(names, _check)


def _check(snapshot: Snapshot) -> None:
    if wrong := snapshot.verify():
        raise HostError(f"snapshot {snapshot.name!r}: {'; '.join(wrong)}", hint=f"firkin snapshot rm {snapshot.name}")


@snapshot.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--merge", is_flag=True, help="A difference and all that it differs from as one full snapshot.")
def export(name: str, file: Path, merge: bool) -> None:
    """Write a snapshot into one tar file, compressed if its name ends with .zst."""
    with Firkin() as firkin:
        firkin.snapshot(name).export(file, merge=merge)
        click.echo(f"{file} {size(file.stat().st_size)}")


@snapshot.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="What to call it; else as it was called.")
def import_(file: Path, name: str | None) -> None:
    """Bring in a snapshot that was exported."""
    from firkin.manager.arrival import import_from

    with Firkin() as firkin:
        done = import_from(firkin.context, file, name=name)
    click.echo(done.record.name)
    for note in done.notes:
        click.echo(f"note: {printable(note)}", err=True)


def _each(names: tuple[str, ...], act: Callable[[Snapshot], None]) -> int:
    """Act on each, tell failures on the way; 0, or the last failure's exit code."""
    code = 0
    with Firkin() as firkin:
        for name in names:
            try:
                act(firkin.snapshot(name))
                click.echo(name)
            except FirkinError as error:
                code = report(error)
    return code
