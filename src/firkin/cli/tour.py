"""`firkin tour`: print each stop of the tour as it is reached, and a closing table."""

from __future__ import annotations

import time
from dataclasses import replace

import click

from firkin import settings
from firkin.cli import EXIT_FIRKIN
from firkin.cli.output import print_json, print_table, printable_lines, show_progress
from firkin.manager.firkin import Firkin
from firkin.manager.tour import Stop
from firkin.manager.tour import tour as stops
from firkin.settings import EngineChoice, NetworkMode

VERDICTS = {True: "proved", False: "FAILED", None: "done"}


@click.command()
@click.argument("image", default="debian")
@click.option("--kernel", metavar="NAME", help="A kernel of `firkin kernel ls`; the configured one if not given.")
@click.option(
    "--network-mode", type=click.Choice([str(mode) for mode in NetworkMode]), default="own", show_default=True,
    help="Whether the network is in the host's namespace or one of its own.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice([str(engine) for engine in EngineChoice]), help="The VMM; auto asks the host check."
)
@click.option("--keep", is_flag=True, help="Leave the machine running.")
@click.option("--json", "as_json", is_flag=True, help="Print timings and proofs as JSON.")
def tour(image: str, kernel: str | None, network_mode: str, engine: str | None, keep: bool, as_json: bool) -> int:
    """From nothing to a microVM that answers, each claim proved.

    Every step is shown as you would type it.
    """
    began = time.perf_counter()
    show_progress()
    chosen = settings.load()
    chosen = replace(
        chosen,
        network_mode=NetworkMode(network_mode),
        engine=EngineChoice(engine) if engine else chosen.engine,
        cold=True,  # the boot is what it shows
    )
    seen: list[Stop] = []
    with Firkin(chosen) as firkin:
        for stop in stops(firkin, image=image, kernel=kernel or chosen.kernel, keep=keep):
            seen.append(stop)
            if not as_json:
                _show(len(seen), stop)
    total = round(time.perf_counter() - began, 3)
    failed = [stop.title for stop in seen if stop.proof is False]
    if as_json:
        print_json({"ok": not failed, "seconds": total, "stops": seen})
    else:
        _close(seen, total, failed)
    return EXIT_FIRKIN if failed else 0


def _show(number: int, stop: Stop) -> None:
    click.secho(f"\n{number}. {stop.title}", bold=True)
    for command in stop.commands:
        click.secho(f"   $ {command}", fg="cyan")
    for line in printable_lines(stop.output).splitlines():
        click.echo(f"   {line}")
    click.secho(f"   {VERDICTS[stop.proof]} in {stop.seconds:.3f} s", fg="red" if stop.proof is False else "green")


def _close(seen: list[Stop], total: float, failed: list[str]) -> None:
    click.echo()
    rows = [(stop.title, VERDICTS[stop.proof], f"{stop.seconds:8.3f}") for stop in seen]
    print_table(
        ("STOP", "RESULT", " SECONDS"), [*rows, ("Total", "FAILED" if failed else "all proved", f"{total:8.3f}")]
    )
    if failed:
        click.echo(f"error: not proved: {', '.join(failed)}", err=True)
        click.echo("hint: firkin tour --keep leaves the machine running to look at", err=True)
