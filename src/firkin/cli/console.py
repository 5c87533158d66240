"""A person's terminal on a machine's serial console."""

from __future__ import annotations

import click

from firkin.manager.firkin import Firkin


@click.command()
@click.argument("name")
def console(name: str) -> None:
    """Attach to a machine's serial console; ctrl-p ctrl-q detaches."""
    from firkin.cli.terminal import attach

    with Firkin() as firkin:
        attach(firkin.machine(name))
