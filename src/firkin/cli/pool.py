"""Verbs on pools: create, ls, claim, rm."""

from __future__ import annotations

from dataclasses import dataclass

import click

from firkin.cli.output import ago, print_json, print_table, show_progress
from firkin.cli.run import memory_mib
from firkin.errors import UsageError
from firkin.manager.firkin import Firkin
from firkin.manager.pool import Pool
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime


@click.group()
def pool() -> None:
    """Machines held ready, to be claimed in the time of a process."""


@pool.command()
@click.argument("name")
@click.option("--size", type=int, default=2, show_default=True, metavar="N", help="How many are held ready.")
@click.option("--from", "snapshot", metavar="SNAPSHOT", help="Forks of this, instead of freshly booted ones.")
@click.option("-c", "--vcpus", type=int, default=1, show_default=True, metavar="N", help="Processors of each.")
@click.option(
    "-m", "--memory", callback=memory_mib, default="256", show_default=True, metavar="SIZE",
    help="Memory of each: MiB, or with m or g.",
)  # fmt: skip
@click.option("--kernel", metavar="NAME", help="A kernel of `firkin kernel ls`.")
@click.option("--network", metavar="NAME", default="default", show_default=True, help="Where they are.")
@click.argument("image", required=False)
def create(
    name: str, size: int, snapshot: str | None, vcpus: int, memory: int, kernel: str | None, network: str,
    image: str | None,
) -> None:  # fmt: skip
    """Hold machines ready: freshly booted ones of IMAGE, or forks of a snapshot. They come in the background.

    \b
    firkin pool create web --size 4 busybox
    firkin pool create web --size 4 --from web-ready
    """
    show_progress()
    if (snapshot is None) == (image is None):
        raise UsageError("a pool is of an IMAGE, or --from a snapshot", hint="firkin pool create NAME --size 4 busybox")
    with Firkin() as firkin:
        of = (
            MachineSpec(image=image, vcpus=vcpus, memory_mib=memory, kernel=kernel, network=network)
            if image is not None
            else firkin.snapshot(str(snapshot))
        )
        click.echo(firkin.create_pool(name, of, size=size).name)


@pool.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
def ls(as_json: bool, quiet: bool) -> None:
    """List pools."""
    with Firkin() as firkin:
        rows = [described(firkin, firkin.pool(record.name)) for record in firkin.pools()]
    if as_json:
        print_json(rows)
    elif quiet:
        for row in rows:
            click.echo(row.name)
    else:
        titles = ("NAME", "SIZE", "READY", "FILLING", "SNAPSHOT", "NETWORK", "CREATED")
        print_table(titles, [_row(row) for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A pool's row, who waits in it, and whether somebody fills it."""

    id: str
    name: str
    size: int
    ready: list[str]
    filling: bool
    snapshot: str
    network: str
    log: str
    created_at: float


def described(firkin: Firkin, found: Pool) -> Described:
    """As it is now."""
    record = found.record
    snapshot = firkin.context.snapshots.get(record.snapshot)
    return Described(
        id=record.id,
        name=record.name,
        size=record.size,
        ready=[member.name for member in firkin.context.machines.members(record.id)],
        filling=found.filling,
        snapshot=snapshot.name if snapshot else record.snapshot,
        network=record.network,
        log=str(found.log),
        created_at=record.created_at,
    )


def _row(pool: Described) -> tuple[object, ...]:
    filling = "yes" if pool.filling else "-"
    return pool.name, pool.size, len(pool.ready), filling, pool.snapshot, pool.network, ago(pool.created_at)


@pool.command()
@click.argument("name")
@click.option("--rm", "remove", is_flag=True, help="Remove the machine when it stops.")
def claim(name: str, remove: bool) -> None:
    """Take a machine out of a pool, and print its name; another takes its place in the background.

    \b
    firkin exec $(firkin pool claim web) -- uname -a
    """
    lifetime = Lifetime.UNTIL_STOPPED if remove else Lifetime.KEPT
    with Firkin() as firkin:
        click.echo(firkin.pool(name).claim_as(lifetime, outlives=True).name)


@pool.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: tuple[str, ...]) -> None:
    """Remove pools, and the machines that wait in them; those that were claimed go on."""
    with Firkin() as firkin:
        for name in names:
            firkin.pool(name).remove()
            click.echo(name)
