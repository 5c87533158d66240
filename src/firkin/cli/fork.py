"""`firkin fork`: more machines that go on from where one is, or from a snapshot."""

from __future__ import annotations

import click

from firkin.cli.output import show_progress
from firkin.errors import NotFound, UsageError
from firkin.manager.firkin import Firkin
from firkin.manager.fork import fork_machine, fork_many
from firkin.manager.machine import Machine
from firkin.store.machines import Lifetime


@click.command()
@click.argument("name")
@click.option("-n", "--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many.")
@click.option("--name", "fork_name", metavar="NAME", help="What to call it, where it is one; made up if not given.")
@click.option("--name-prefix", metavar="PREFIX", help="Call them PREFIX-1, PREFIX-2 and so on.")
@click.option("--rm", "remove", is_flag=True, help="Remove each when it stops.")
def fork(name: str, count: int, fork_name: str | None, name_prefix: str | None, remove: bool) -> None:
    """Start more machines that go on from where NAME is.

    NAME is a machine or a snapshot; the names of the new ones are printed.

    Each has its own host name, address, keys and random numbers. The machine itself stands still for a moment and goes
    on. A fork whose name is not given gets one that is made up.

    \b
    firkin fork web                          one more like it
    firkin fork web -n 10 --name-prefix try  try-1 to try-10
    """
    show_progress()
    lifetime = Lifetime.UNTIL_STOPPED if remove else Lifetime.KEPT
    with Firkin() as firkin:
        for machine in _fork(firkin, name, count, _names(count, fork_name, name_prefix), lifetime):
            click.echo(machine.name)


def _names(count: int, name: str | None, prefix: str | None) -> list[str]:
    if name is not None and (prefix is not None or count > 1):
        raise UsageError("--name names one fork", hint="--name-prefix PREFIX names several")
    if prefix is not None:
        return [f"{prefix}-{number}" for number in range(1, count + 1)]
    return [] if name is None else [name]


def _fork(firkin: Firkin, name: str, count: int, names: list[str], lifetime: Lifetime) -> list[Machine]:
    """Of the machine of that name, or else of the snapshot."""
    try:
        machine = firkin.machine(name)
    except NotFound:
        try:
            snapshot = firkin.snapshot(name)
        except NotFound:
            raise NotFound("machine or snapshot", name, hint="firkin ls; firkin snapshot ls") from None
        return fork_many(firkin.context, snapshot.record, count, names=names, lifetime=lifetime, outlives=True)
    return fork_machine(firkin.context, machine, count, names=names, lifetime=lifetime, outlives=True)
