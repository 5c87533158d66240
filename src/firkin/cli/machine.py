"""Verbs on machines that exist: ls, inspect, logs, wait, pause, resume, stop, kill, rm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click
import msgspec

from firkin.cli.output import ago, print_json, print_table, utc
from firkin.errors import FirkinError, UsageError
from firkin.manager.firkin import Firkin
from firkin.store.machines import MachineRecord

if TYPE_CHECKING:
    from firkin.manager.logs import LogLine
    from firkin.manager.machine import Machine

NAMES = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
def ls(as_json: bool, quiet: bool) -> None:
    """List machines."""
    with Firkin() as firkin:
        records = firkin.records()
    if as_json:
        print_json(records)
    elif quiet:
        for record in records:
            click.echo(record.name)
    else:
        titles = ("NAME", "ID", "STATE", "IMAGE", "ADDRESS", "ENGINE", "VCPUS", "MEMORY", "STARTED")
        print_table(titles, [_row(record) for record in records])


def _row(record: MachineRecord) -> tuple[object, ...]:
    spec = record.spec
    memory = f"{spec.memory_mib} MiB"
    address = record.address or "-"
    started = ago(record.started_at)
    return record.name, record.id, record.state, spec.image, address, record.engine, spec.vcpus, memory, started


@click.command()
@click.argument("name")
@click.option("--timeline", is_flag=True, help="A table of how long each phase of its start took.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; only --timeline has another form.")
def inspect(name: str, timeline: bool, as_json: bool) -> None:
    """Print all that is known of a machine, as JSON."""
    from firkin.net.plan import encode_address

    with Firkin() as firkin:
        machine = firkin.machine(name)
        if timeline:
            from firkin.cli.timeline import print_timeline

            print_timeline(machine.record.timeline, as_json=as_json)
            return
        network = machine.network
        files = {
            "console_log": str(machine.console_log),
            "engine_log": str(machine.engine_log),
            "vm_config": str(machine.run_folder / "vm_config.json"),
            "api_socket": str(machine.run_folder / "api.sock"),
            "vsock_socket": str(machine.run_folder / "vsock.sock"),
        }
        print_json(
            msgspec.to_builtins(machine.record)
            | {
                "exit_code": machine.exit_code,
                "network_plan": msgspec.to_builtins(network, enc_hook=encode_address),
                "files": files,
            }
        )


def line_count(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """`all` or a number of lines."""
    if value == "all":
        return None
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is not a number of lines, nor all", ctx=context, param=parameter)
    return int(value)


@click.command()
@click.argument("name")
@click.option("--engine", is_flag=True, help="The VMM's log instead of the console's.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the machine stops.")
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with the time at which it came.")
@click.option("--since", metavar="TIME", help="Only what came later: 10m or 1h30m ago, or a date and time.")
@click.option("--until", metavar="TIME", help="Only what came before.")
@click.option(
    "-n", "--tail", callback=line_count, default="all", show_default=True, metavar="N", help="The last N lines."
)
def logs(name: str, engine: bool, follow: bool, timestamps: bool, tail: int | None, **span: str | None) -> None:
    """Print what the guest wrote on its console."""
    from firkin.manager.logs import read_logs

    if engine and (timestamps or any(span.values())):
        raise UsageError("the VMM's log has its own times in its lines", hint="firkin logs --engine NAME")
    with Firkin() as firkin:
        machine = firkin.machine(name)
        path = machine.engine_log if engine else machine.console_log
        lines = read_logs(path, speaks=machine.speaks, follow=follow, tail=tail, **span)
        print_lines(lines, timestamps=timestamps, at_once=follow)


def print_lines(lines: Iterable[LogLine], *, timestamps: bool, at_once: bool) -> None:
    """Bytes as they came; only those times that begin a line are printed."""
    out, begins = sys.stdout.buffer, True
    for line in lines:
        if timestamps and begins:
            out.write(f"{utc(line.time)} ".encode())
        out.write(line.text)
        begins = line.text.endswith(b"\n")
        if at_once:
            out.flush()
    out.flush()


@click.command()
@NAMES
def wait(names: tuple[str, ...]) -> None:
    """Wait until machines end; print their entrypoints' exit codes."""
    with Firkin() as firkin:
        for name in names:
            code = firkin.machine(name).wait()
            click.echo("-" if code is None else code)


@click.command()
@NAMES
def pause(names: tuple[str, ...]) -> int:
    """Hold machines still: no processor time, memory kept."""
    return each(names, lambda machine: machine.pause())


@click.command()
@NAMES
def resume(names: tuple[str, ...]) -> int:
    """Let paused machines go on."""
    return each(names, lambda machine: machine.resume())


@click.command()
@NAMES
@click.option(
    "-t", "--time", "timeout_s", type=click.FloatRange(min=0), default=10.0, show_default=True, metavar="SECONDS",
    help="How long it may take.",
)  # fmt: skip
def stop(names: tuple[str, ...], timeout_s: float) -> int:
    """Shut machines down in order; kill those that take too long."""
    return each(names, lambda machine: machine.stop(timeout_s=timeout_s))


@click.command()
@NAMES
def kill(names: tuple[str, ...]) -> int:
    """Stop machines at once, as pulling the plug does."""
    return each(names, lambda machine: machine.kill())


@click.command()
@NAMES
@click.option("-f", "--force", is_flag=True, help="Running machines too.")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Remove machines, with their layers and logs."""
    return each(names, lambda machine: machine.remove(force=force))


def each(names: tuple[str, ...], act: Callable[[Machine], None]) -> int:
    """Do it to every machine, and print the names of those where it went well; answers the last failure's code."""
    from firkin.cli import report

    code = 0
    with Firkin() as firkin:
        for name in names:
            try:
                act(firkin.machine(name))
                click.echo(name)
            except FirkinError as error:
                code = report(error)
    return code
