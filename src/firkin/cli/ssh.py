"""OpenSSH on a running machine."""

from __future__ import annotations

import os

import click

from firkin.cli.shell import PASS_THROUGH, after_dashes
from firkin.manager.firkin import Firkin


@click.command(context_settings=PASS_THROUGH)
@click.option("-l", "--login", default="root", show_default=True, help="User in the guest.")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, login: str, command: tuple[str, ...]) -> None:
    """Log in to a machine with OpenSSH, or run COMMAND there."""
    from firkin.host.netns import enter

    with Firkin() as firkin:
        machine = firkin.machine(name)
        machine.process()
        argv, netns = machine.ssh_argv(after_dashes(command), user=login), machine.network.netns
    if netns is not None:
        enter(netns)
    os.execvp(argv[0], argv)
