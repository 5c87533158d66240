"""Programs in a running machine, through its agent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine

PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def interact(machine: Machine, command: tuple[str, ...], *, tty: bool) -> int:
    """Run a command in the guest on our own stdin, stdout and stderr; answers its exit code."""
    from firkin.cli.terminal import raw_mode

    with machine.agent() as agent:
        size = os.get_terminal_size(sys.stdout.fileno()) if tty else None
        with raw_mode(sys.stdin.fileno() if tty else -1):
            status = agent.exec(
                command,
                tty=(size.lines, size.columns) if size else None,
                stdin=sys.stdin.fileno(),
                on_stdout=writer(sys.stdout.fileno()),
                on_stderr=writer(sys.stderr.fileno()),
            )
    return status.returncode


def writer(fd: int) -> Callable[[bytes], None]:
    """A sink that writes all it is given, whatever the descriptor is."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write


def after_dashes(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command itself: `--` before it only ends our own options."""
    return command[1:] if command[:1] == ("--",) else command


@click.command("exec", context_settings=PASS_THROUGH)
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-i", "--interactive", is_flag=True, expose_value=False, help="As in docker; stdin is always passed.")
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, tty: bool, command: tuple[str, ...]) -> int:
    """Run COMMAND in a running machine. Never through a shell: ask for one with `sh -c`."""
    with Firkin() as firkin:
        return interact(firkin.machine(name), after_dashes(command), tty=tty)
