"""firkin-vmm's start: command line, log, signals, socket, then the loop until the guest or a signal ends it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from firkin.engine import args, exits
from firkin.engine.exits import Fatal, Intercepted, Panic
from firkin.engine.journal import Journal, UnknownLevel, parse_level


def main(argv: Sequence[str] | None = None) -> int:
    """Run the engine with these arguments (default: the process's own); the exit code."""
    _open_missing_streams()
    journal = Journal(args.DEFAULT_ID)
    try:
        code = _run(sys.argv[1:] if argv is None else argv, journal)
    except Fatal as error:
        journal.error(str(error))
        os.write(2, f"Error: {error.debug}\n".encode())
        code = error.code
    except Panic as error:
        journal.error(f"Firecracker panicked at {error}")
        exits.die_of(signal.SIGABRT)
        code = exits.PANIC
    except Intercepted as signalled:
        if signalled.code is None:
            exits.die_of(signalled.number)
        journal.error(f"Shutting down VM after intercepting signal {signalled.number}, code 0.")
        code = signalled.code or exits.GENERIC
    _say_goodbye(journal, code)
    return code


def _run(argv: Sequence[str], journal: Journal) -> int:
    try:
        arguments = args.parse(argv)
    except args.ArgumentError as error:
        text = f"Arguments parsing error: {error} \n\nFor more information try --help."
        raise Fatal(text, debug=f"ParseArguments({error.debug})", code=exits.BAD_ARGUMENTS) from error
    if arguments.flags & {"help", "version"}:
        text = f"{args.VERSION_LINE}\n\n" + (args.help_text() + "\n" if "help" in arguments.flags else "")
        os.write(1, text.encode())
        return exits.OK
    _set_up_log(arguments, journal)
    journal.info(f"Running {args.VERSION_LINE}")
    exits.intercept_signals()
    from firkin.engine.engine import run

    return run(arguments, journal)


def _set_up_log(arguments: args.Arguments, journal: Journal) -> None:
    journal.instance_id = arguments.value("id")
    if not args.is_instance_id(journal.instance_id):
        raise Panic(f"Invalid instance ID: {journal.instance_id!r}")
    if (level := arguments.get("level")) is not None:
        try:
            journal.level = parse_level(level)
        except UnknownLevel as error:
            text = f"Invalid value for logger level: {level}.Possible values: [Error, Warning, Info, Debug]"
            raise Fatal(text, debug=f'InvalidLogLevel("{level}")', code=exits.BAD_LEVEL) from error
    journal.show_level = "show-level" in arguments.flags
    journal.show_origin = "show-log-origin" in arguments.flags
    journal.module = arguments.get("module")
    if (path := arguments.get("log-path")) is not None:
        try:
            journal.open(path)
        except OSError as error:
            from firkin.engine.faults import os_text

            text = f"Could not initialize logger: Failed to open target file: {os_text(error)}"
            raise Fatal(text, debug="LoggerInitialization(Open)") from error


def _say_goodbye(journal: Journal, code: int) -> None:
    if code == exits.OK:
        journal.info("Firecracker exiting successfully. exit_code=0")
    else:
        journal.error(f"Firecracker exiting with error. exit_code={code}")


def _open_missing_streams() -> None:
    """Give 0, 1 and 2 to /dev/null where they are closed: another file there would be taken for the console."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    sys.exit(main())
