"""`firkin rewind`: a machine goes back to one of its snapshots, in place."""

from __future__ import annotations

import click

from firkin.manager.firkin import Firkin


@click.command()
@click.argument("name")
@click.option("--to", required=True, metavar="SNAPSHOT", help="Which; `firkin snapshot ls` lists them.")
def rewind(name: str, to: str) -> None:
    """Take a machine back to one of its snapshots, in place.

    Memory, files and programs are those of then. Name, address, keys and the console's log stay; the clock is right.

    \b
    firkin snapshot create web --name before
    firkin exec web -- sh -c 'rm -rf /srv'
    firkin rewind web --to before
    """
    with Firkin() as firkin:
        machine = firkin.machine(name)
        machine.rewind(to)
        machine.close()
        click.echo(machine.name)
