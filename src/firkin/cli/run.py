"""`firkin run`: boot a machine; console, command, or detached."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import click

from firkin import settings
from firkin.cli.output import show_progress
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.settings import EngineChoice, NetworkMode, Settings
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime

SUFFIXES = {"": 1, "m": 1, "mib": 1, "g": 1024, "gib": 1024}


def memory_mib(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """`256`, `256m` or `1g` → MiB."""
    digits = value.rstrip("gGmMiIbB")
    factor = SUFFIXES.get(value[len(digits) :].lower())
    if not digits.lstrip("-").isdigit() or factor is None:
        raise click.BadParameter(f"{value!r} is not a size; try 256, 256m or 1g", ctx=context, param=parameter)
    return int(digits) * factor


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--name", metavar="NAME", help="Name and host name; made up if not given.")
@click.option("-d", "--detach", is_flag=True, help="Print the name and leave the machine running.")
@click.option("--rm", "remove", is_flag=True, help="Remove the machine when it stops.")
@click.option("-c", "--vcpus", type=int, default=1, show_default=True, metavar="N", help="Processors of the guest.")
@click.option(
    "-m", "--memory", callback=memory_mib, default="256", show_default=True, metavar="SIZE",
    help="Memory of the guest: MiB, or with m or g.",
)  # fmt: skip
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable; NAME alone passes ours on.")
@click.option("--kernel", metavar="NAME", help="A kernel of `firkin kernel ls`.")
@click.option(
    "--network", metavar="NAME", default="default", show_default=True, help="Machines of one reach each other."
)
@click.option(
    "--network-mode", type=click.Choice([str(mode) for mode in NetworkMode]),
    help="Whether the network is in the host's namespace or one of its own.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice([str(engine) for engine in EngineChoice]), help="The VMM; auto asks the host check."
)
@click.option("--boot-args", metavar="WORDS", default="", help="Appended to the kernel's command line.")
@click.option(
    "--boot-timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS",
    help="How long until its agent must answer.",
)  # fmt: skip
@click.option("--cold", is_flag=True, help="Boot, even if there is a template to fork from, and leave none.")
@click.option("--timeline", is_flag=True, help="Tell on stderr how long each phase took, the COMMAND's run included.")
@click.argument("image", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    detach: bool,
    remove: bool,
    memory: int,
    network_mode: str | None,
    engine: str | None,
    boot_timeout: float,
    cold: bool,
    timeline: bool,
    image: str | None,
    command: tuple[str, ...],
    env: tuple[str, ...],
    **options: object,
) -> int:
    """Boot a machine: on its console, for one command, or detached.

    The exit code is the COMMAND's own. Without a COMMAND this terminal becomes the console; ctrl-p ctrl-q detaches.

    \b
    firkin run --rm busybox uname -a       one command, and the machine is gone
    firkin run -d --name web -m 1g debian  in the background
    firkin run busybox                     its console
    """
    from firkin.cli.shell import after_dashes, checked_variables

    show_progress()
    command = after_dashes(command)
    # Who asks for the console wants to see it from the start.
    chosen = _choose(network_mode, engine, cold=cold or not (detach or command))
    spec = MachineSpec(
        image=image or chosen.image,
        memory_mib=memory,
        boot_timeout_s=boot_timeout,
        command=command if detach else (),
        env=tuple(checked_variables(env)),
        **options,  # type: ignore[arg-type]
    )
    with Firkin(chosen) as firkin:
        until_end = Lifetime.UNTIL_STOPPED if detach else Lifetime.SESSION
        machine = firkin.run(spec, lifetime=until_end if remove else Lifetime.KEPT)
        if command and not detach:
            return _command(firkin, machine, command, remove=remove, timeline=timeline)
        if timeline:
            _tell_timeline(machine)
        return _detached(machine) if detach else _console(machine, remove=remove)


def _choose(network_mode: str | None, engine: str | None, *, cold: bool) -> Settings:
    """The settings, where no option says otherwise."""
    chosen = settings.load()
    return replace(
        chosen,
        network_mode=NetworkMode(network_mode) if network_mode else chosen.network_mode,
        engine=EngineChoice(engine) if engine else chosen.engine,
        cold=chosen.cold or cold,
    )


def _detached(machine: Machine) -> int:
    click.echo(machine.name)
    return 0


def _command(firkin: Firkin, machine: Machine, command: tuple[str, ...], *, remove: bool, timeline: bool) -> int:
    """The machine lives as long as its command; killing it loses nothing, since its layer is in its memory."""
    from firkin.cli.shell import interact, terminal_size
    from firkin.manager.timeline import then_command

    try:
        began = time.perf_counter()
        tty = sys.stdin.isatty() and sys.stdout.isatty()
        process = machine.start(*command, tty=terminal_size() if tty else None, stdin=True)
        code = interact(process, tty=tty, stdin=True)
        if timeline or not remove:
            noted = then_command(machine.record.timeline, (time.perf_counter() - began) * 1000)
            firkin.context.machines.update(machine.id, timeline=noted)
        if timeline:
            _tell_timeline(machine)
        return code
    finally:
        _finish(machine, remove=remove)


def _tell_timeline(machine: Machine) -> None:
    from firkin.cli.timeline import print_timeline

    print_timeline(machine.record.timeline, err=True)


def _console(machine: Machine, *, remove: bool) -> int:
    from firkin.cli.console import attach

    if attach(machine, from_start=True):
        click.echo(f"\ndetached; firkin console {machine.name} attaches again", err=True)
        return 0
    _finish(machine, remove=remove)
    return 0


def _finish(machine: Machine, *, remove: bool) -> None:
    if remove:
        machine.remove(force=True)
    else:
        machine.settle()
