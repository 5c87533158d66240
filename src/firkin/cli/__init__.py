"""The command line: the one place that prints and exits. Verbs load on use, so that `ls` does not pay for `image`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from firkin.errors import FirkinError

EXIT_FIRKIN = FirkinError.exit_code
EXIT_INTERRUPTED = 130

VERBS = {
    "run": "firkin.cli.run:run",
    "ls": "firkin.cli.machine:ls",
    "inspect": "firkin.cli.machine:inspect",
    "logs": "firkin.cli.machine:logs",
    "wait": "firkin.cli.machine:wait",
    "stop": "firkin.cli.machine:stop",
    "kill": "firkin.cli.machine:kill",
    "rm": "firkin.cli.machine:rm",
    "exec": "firkin.cli.shell:exec_",
    "cp": "firkin.cli.copy:cp",
    "attach": "firkin.cli.shell:attach",
    "ssh": "firkin.cli.ssh:ssh",
    "ssh-config": "firkin.cli.ssh:ssh_config",
    "proxy": "firkin.cli.ssh:proxy",
    "console": "firkin.cli.console:console",
    "kernel": "firkin.cli.kernel:kernel",
    "image": "firkin.cli.image:image",
    "stats": "firkin.cli.stats:stats",
    "top": "firkin.cli.stats:top",
    "tour": "firkin.cli.tour:tour",
    "doctor": "firkin.cli.doctor:doctor",
}


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in VERBS:
            return None
        module, attribute = VERBS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="firkin", message="firkin %(version)s")
def cli() -> None:
    """A Firecracker microVM from nothing, with or without KVM."""


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit: the guest program's own code, 125 for firkin's errors, 2 for usage."""
    _open_closed_streams()
    sys.exit(_invoke(argv))


def _open_closed_streams() -> None:
    """Give 0, 1 and 2 to /dev/null where they are closed: else the store would take their number, and our output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(fd, "w" if number else "r"))


def _invoke(argv: list[str] | None) -> int:
    try:
        result: Any = cli.main(argv, prog_name="firkin", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except FirkinError as error:
        return report(error)
    except BrokenPipeError:
        return 0  # whoever read our output has seen enough
    except Exception as error:  # noqa: BLE001 - the last door: a bug is told in a line, its traceback on request
        return _bug(error)
    return result if isinstance(result, int) else 0


def _bug(error: Exception) -> int:
    if os.environ.get("FIRKIN_DEBUG"):
        raise error
    click.echo(f"error: internal: {type(error).__name__}: {error}", err=True)
    click.echo("hint: FIRKIN_DEBUG=1 shows where; please report it with that", err=True)
    return EXIT_FIRKIN


def report(error: FirkinError) -> int:
    """Print an error the one way there is; answers the exit code."""
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code
