"""The command line: the one place that prints and exits. Verbs load on use, so that `ls` does not pay for `image`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from firkin.errors import FirkinError, UsageError

EXIT_FIRKIN = FirkinError.exit_code
EXIT_INTERRUPTED = 130
DOCKERS_WORDS = {"ps": "ls", "images": "image ls", "build": "image build", "create": "run", "start": "run"}

VERBS = {
    "run": "firkin.cli.run:run",
    "ls": "firkin.cli.machine:ls",
    "inspect": "firkin.cli.machine:inspect",
    "logs": "firkin.cli.machine:logs",
    "wait": "firkin.cli.machine:wait",
    "rewind": "firkin.cli.rewind:rewind",
    "pause": "firkin.cli.machine:pause",
    "resume": "firkin.cli.machine:resume",
    "stop": "firkin.cli.machine:stop",
    "kill": "firkin.cli.machine:kill",
    "rm": "firkin.cli.machine:rm",
    "exec": "firkin.cli.shell:exec_",
    "cp": "firkin.cli.copy:cp",
    "fork": "firkin.cli.fork:fork",
    "attach": "firkin.cli.shell:attach",
    "ssh": "firkin.cli.ssh:ssh",
    "ssh-config": "firkin.cli.ssh:ssh_config",
    "proxy": "firkin.cli.ssh:proxy",
    "console": "firkin.cli.console:console",
    "pool": "firkin.cli.pool:pool",
    "kernel": "firkin.cli.kernel:kernel",
    "image": "firkin.cli.image:image",
    "snapshot": "firkin.cli.snapshot:snapshot",
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click has it; a verb that is none is told with the one that was meant."""
        verb = args[0]
        if verb not in VERBS and not verb.startswith("-"):
            raise UsageError(f"{verb!r} is no verb of firkin", hint=f"firkin {_meant(verb)}")
        return super().resolve_command(ctx, args)


def _meant(verb: str) -> str:
    if verb in DOCKERS_WORDS:
        return DOCKERS_WORDS[verb]
    from difflib import get_close_matches

    return next(iter(get_close_matches(verb, VERBS, n=1)), "--help")


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
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return report(_as_ours(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except FirkinError as error:
        return report(error)
    except SystemExit as end:
        if end.code != 1:
            raise
        return 0  # click ends so where whoever read our output has seen enough; nobody else ends with 1
    except Exception as error:  # noqa: BLE001 - the last door: a bug is told in a line, its traceback on request
        return _bug(error)
    return result if isinstance(result, int) else 0


def _bug(error: Exception) -> int:
    if os.environ.get("FIRKIN_DEBUG"):
        raise error
    click.echo(f"error: internal: {type(error).__name__}: {error}", err=True)
    click.echo("hint: FIRKIN_DEBUG=1 shows where; please report it with that", err=True)
    return EXIT_FIRKIN


def _as_ours(error: click.ClickException) -> FirkinError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return UsageError(error.format_message().rstrip("."), hint=f"{context.command_path} --help" if context else "")


def report(error: FirkinError) -> int:
    """Print an error the one way there is; answers the exit code. Its text may come from a guest."""
    from firkin.cli.output import printable_lines

    click.echo(f"error: {printable_lines(str(error))}", err=True)
    if error.hint:
        click.echo(f"hint: {printable_lines(error.hint)}", err=True)
    return error.exit_code
