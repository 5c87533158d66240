"""The verb that tells whether this host can run machines, and mends it where a command can."""

from __future__ import annotations

import shlex

import click

from firkin import settings
from firkin.cli import EXIT_FIRKIN
from firkin.cli import report as report_error
from firkin.cli.output import print_json, print_table, show_progress
from firkin.errors import FirkinError
from firkin.host.run import run
from firkin.manager.checks import Check, Status
from firkin.manager.doctor import Report, diagnose, local_host
from firkin.paths import Paths
from firkin.progress import step


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--fix", is_flag=True, help="Run the commands that mend what did not pass, then check again.")
@click.option("-y", "--yes", is_flag=True, help="With --fix: do not ask.")
def doctor(as_json: bool, fix: bool, yes: bool) -> int:
    """Check this host and say which engine machines run on.

    Exit code 0 when machines can run, 125 otherwise.
    """
    show_progress()
    paths = settings.load().paths
    report = _look(paths)
    commands = fixes(report) if fix else []
    if commands:
        if not as_json:
            show(report)
        if not _agreed(commands, yes=yes):
            return _exit_code(report)
        carry_out(commands)
        report = _look(paths)
    if as_json:
        print_json(report)
    else:
        show(report)
    return _exit_code(report)


def _exit_code(report: Report) -> int:
    return 0 if report.ok else EXIT_FIRKIN


def _look(paths: Paths) -> Report:
    with step("Checking this host"):
        return diagnose(local_host(paths), paths)


def show(report: Report) -> None:
    """The table, then the verdict in one line."""
    print_table(("CHECK", "FOUND", "NEEDED", "STATUS", "FIX"), [_row(check) for check in report.checks])
    click.echo()
    click.echo(verdict_line(report))


def _row(check: Check) -> tuple[str, ...]:
    return check.name, check.found, check.needed, check.status, check.fix or "-"


def verdict_line(report: Report) -> str:
    """Engine and why; or what stands in the way."""
    if report.ok:
        return f"{report.why}: machines run on {report.engine}"
    broken = ", ".join(check.name for check in report.checks if check.status is Status.FAIL)
    return f"{report.why}: machines would run on {report.engine}, but cannot yet ({broken})"


def fixes(report: Report) -> list[str]:
    """Commands of the checks that did not pass, each once, in the table's order."""
    wanted = (check.fix for check in report.checks if check.status is not Status.OK and check.fix)
    return list(dict.fromkeys(wanted))


def _agreed(commands: list[str], *, yes: bool) -> bool:
    click.echo("To be run:", err=True)
    for command in commands:
        click.echo(f"  {command}", err=True)
    return yes or click.confirm("Run them?", err=True)


def carry_out(commands: list[str]) -> None:
    """One that fails is reported and does not keep the others from running."""
    for command in commands:
        try:
            with step(command):
                run(*shlex.split(command))
        except FirkinError as error:
            report_error(error)
