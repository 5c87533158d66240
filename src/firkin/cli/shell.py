"""Programs in a running machine, through its agent."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from firkin.agent.feeder import Sieve
from firkin.agent.messages import ExitStatus, KeptProgram
from firkin.agent.process import Process
from firkin.errors import ExecTimeout, InvalidSpec
from firkin.manager.firkin import Firkin

if TYPE_CHECKING:
    from firkin.manager.machine import Machine

PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}
PLAIN_SIZE = (24, 80)  # where there is no terminal


def interact(
    process: Process, *, tty: bool, stdin: bool, timeout_s: float | None = None, sieve: Sieve | None = None
) -> int:
    """Join a program in the guest to our own stdin, stdout and stderr; answers its exit code.

    Signals that we get, and the size of our terminal, go to the program.

    Raises:
        ExecTimeout: it ran longer than `timeout_s` seconds, and was killed.
    """
    from firkin.cli.signals import passed_on, time_limit
    from firkin.cli.terminal import raw_mode

    keyboard = sys.stdin.fileno()
    with (
        process,
        raw_mode(keyboard if tty else -1),
        passed_on(process, tty=tty),
        time_limit(process, timeout_s) as limit,
    ):
        if stdin:
            process.feed(keyboard, sieve)
        for fd, data in process:
            write_all(fd, data)
        code = process.wait().returncode
    if limit.passed:
        raise ExecTimeout(f"{process.argv[0]}: still running after {timeout_s:g} s; killed")
    return code


def write_all(fd: int, data: bytes) -> None:
    """Write to a descriptor of ours, whatever it is, until all is out."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def terminal_size() -> tuple[int, int]:
    """(rows, columns) of our terminal."""
    try:
        size = os.get_terminal_size(sys.stdin.fileno())
    except OSError:
        return PLAIN_SIZE
    return size.lines, size.columns


def after_dashes(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command itself: `--` before it only ends our own options."""
    return command[1:] if command[:1] == ("--",) else command


def checked_variables(variables: tuple[str, ...]) -> list[str]:
    """NAME=VALUE as it is; a NAME alone takes its value from our own environment, as in docker.

    Raises:
        InvalidSpec: there is no name.
    """
    given = []
    for variable in variables:
        name, equals, _ = variable.partition("=")
        if not name:
            raise InvalidSpec(f"env: {variable!r} is not NAME=VALUE", hint="-e NAME=VALUE, or -e NAME to pass yours on")
        if equals or name in os.environ:
            given.append(variable if equals else f"{name}={os.environ[name]}")
    return given


@click.command("exec", context_settings=PASS_THROUGH)
@click.option("-i", "--interactive", is_flag=True, help="Pass our stdin to it.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable; NAME alone passes ours on.")
@click.option("-w", "--workdir", metavar="FOLDER", help="Run it in this folder of the guest.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Run it as this user of the guest; names or numbers.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running and print its pid; see `firkin attach`.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS",
    help="Kill it after so long; the exit code is 124.",
)  # fmt: skip
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    name: str,
    command: tuple[str, ...],
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    workdir: str | None,
    user: str | None,
    detach: bool,
    timeout_s: float | None,
) -> int:
    """Run COMMAND in a running machine, never through a shell.

    \b
    firkin exec web uname -a
    firkin exec web -- sh -c 'echo $HOSTNAME'   a shell, where one is wanted
    firkin exec -it web sh                      at a terminal
    tar c . | firkin exec -i web tar x -C /srv

    Exits with the command's own code, 128 + the signal that killed it, 126 or 127 if it could not run, and 125 if
    firkin failed.
    """
    with Firkin() as firkin:
        machine, argv = firkin.machine(name), after_dashes(command)
        variables, size = checked_variables(env), terminal_size() if tty else None
        if detach:
            return _leave(machine, argv, env=variables, cwd=workdir, user=user, tty=size, stdin=interactive)
        process = machine.start(*argv, env=variables, cwd=workdir, user=user, tty=size, stdin=interactive)
        return interact(process, tty=tty and sys.stdin.isatty(), stdin=interactive, timeout_s=timeout_s)


def _leave(machine: Machine, argv: tuple[str, ...], **options: Any) -> int:
    """Start a program and print its pid. We take nothing of what it says: that is for whoever attaches."""
    with machine.agent() as agent, agent.start(argv, kept=True, window=0, **options) as process:
        click.echo(process.pid)
    return 0


@click.command()
@click.option("--no-stdin", is_flag=True, help="Do not pass our stdin to it.")
@click.option(
    "--detach-keys", default="", metavar="KEYS", help="What leaves it on its own again.  [default: ctrl-p,ctrl-q]"
)
@click.argument("name")
@click.argument("pid", type=int, required=False)
def attach(name: str, pid: int | None, no_stdin: bool, detach_keys: str) -> int:
    """Take over a program that `exec --detach` left running.

    Without a PID, list them.
    """
    from firkin.cli.console import DetachKeys, parse_keys

    sieve = DetachKeys(parse_keys(detach_keys)).feed
    with Firkin() as firkin:
        machine = firkin.machine(name)
        programs = machine.kept()
        if pid is None:
            return _list(programs)
        tty = any(program.tty for program in programs if program.pid == pid)
        process = machine.attach(pid)
        return _join(process, pid, name, tty=tty and sys.stdin.isatty(), stdin=not no_stdin, sieve=sieve)


def _join(process: Process, pid: int, name: str, *, tty: bool, stdin: bool, sieve: Sieve) -> int:
    if tty:
        process.resize(*terminal_size())
    code = interact(process, tty=tty, stdin=stdin, sieve=sieve if tty else None)
    if not process.detached:
        return code
    click.echo(f"\ndetached; firkin attach {name} {pid} takes it over again", err=True)
    return 0


def _list(programs: list[KeptProgram]) -> int:
    from firkin.cli.output import print_table

    rows = [(program.pid, _state(program.status), _command(program.argv)) for program in programs]
    print_table(("PID", "STATE", "COMMAND"), rows)
    return 0


def _state(status: ExitStatus | None) -> str:
    if status is None:
        return "running"
    return f"exited ({status.code})" if status.signal is None else f"killed ({status.signal})"


def _command(argv: tuple[bytes, ...]) -> str:
    return shlex.join(word.decode(errors="backslashreplace") for word in argv)
