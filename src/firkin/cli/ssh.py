"""OpenSSH on a running machine: a login, a config for other programs, and the proxy that both reach it by."""

from __future__ import annotations

import os
import time

import click

from firkin.agent.process import Process
from firkin.cli.shell import after_dashes, write_all
from firkin.errors import AgentError, UsageError
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.store.machines import State

# As ssh takes them: options may stand before and after the name, and -h is none of ours.
AS_SSH = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help"]}
WITH_VALUE = "BbcDEeFIiJLlmOopQRSWw"  # ssh(1)
RETRY_S = 0.1
STDIN, STDOUT = 0, 1


@click.command(context_settings=AS_SSH)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SSH OPTIONS] [USER@]NAME [COMMAND]...")
def ssh(words: tuple[str, ...]) -> None:
    """Log in to a machine with OpenSSH, or run COMMAND there.

    All of ssh's options may be given, before the name or after it. Without a USER it is root.
    """
    from firkin.host.run import find

    options, user, name, command = split(words)
    program = find("ssh")
    with Firkin() as firkin:
        machine = firkin.machine(name)
        argv = machine.ssh_argv(command, options=(*options, *(("-l", user) if user else ())))
    os.execv(program, argv)


def split(words: tuple[str, ...]) -> tuple[tuple[str, ...], str, str, tuple[str, ...]]:
    """ssh's options, the user, the machine's name, the command.

    Raises:
        UsageError: no machine is named.
    """
    before, rest = _take_options(words)
    if not rest:
        raise UsageError("ssh: no machine is named", hint="firkin ssh NAME; firkin ls")
    user, _, name = rest[0].rpartition("@")
    after, command = _take_options(after_dashes(rest[1:]))
    return before + after, user, name, after_dashes(command)


def _take_options(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        at += 2 if _value_follows(words[at]) else 1
    return words[:at], words[at:]


def _value_follows(word: str) -> bool:
    """Whether the next word belongs to this option: flags may be bundled, and a value may stand in the same word."""
    places = [place for place, flag in enumerate(word) if flag in WITH_VALUE]
    return bool(places) and places[0] == len(word) - 1


@click.command("ssh-config")
@click.argument("names", nargs=-1, metavar="[NAME...]")
def ssh_config(names: tuple[str, ...]) -> None:
    """Print what OpenSSH must know to reach machines.

    If none is named, of those that run and have an SSH server. For `ssh -F FILE NAME`, scp, sftp and rsync, or an
    Include in ~/.ssh/config.
    """
    with Firkin() as firkin:
        named = [firkin.machine(name) for name in names]
        running = [firkin.machine(record.id) for record in firkin.records() if record.state is State.RUNNING]
        blocks = [machine.ssh_config() for machine in named or running if names or machine.has_sshd]
    click.echo("\n".join(blocks), nl=False)


@click.command(hidden=True)
@click.option("--wait", "wait_s", type=float, default=0.0, metavar="SECONDS", help="So long may nobody listen yet.")
@click.argument("name")
@click.argument("port", type=click.IntRange(1, 65535))
def proxy(name: str, port: int, wait_s: float) -> int:
    """Join stdin and stdout to a TCP port on a machine's own loopback, through vsock: ssh's ProxyCommand."""
    with Firkin() as firkin:
        machine = firkin.machine(name)
        with _dial(machine, port, wait_s) as connection:
            connection.feed(STDIN)
            for output in connection:
                write_all(STDOUT, output.data)
            return connection.wait().returncode


def _dial(machine: Machine, port: int, wait_s: float) -> Process:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return machine.dial(port)
        except AgentError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_S)
