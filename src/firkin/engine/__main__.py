"""firkin-vmm's start: command line, log, signals, socket, then the loop until the guest or a signal ends it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import TracebackType

from firkin.engine import args, exits
from firkin.engine.exits import Fatal, Intercepted, Panic
from firkin.engine.journal import Journal, UnknownLevel, parse_level, source


def main(argv: Sequence[str] | None = None) -> int:
    """Run the engine with these arguments (default: the process's own); the exit code."""
    _open_missing_streams()
    journal = Journal(args.DEFAULT_ID)
    try:
        code = _run(sys.argv[1:] if argv is None else argv, journal)
    except Fatal as error:
        journal.error(str(error))
        os.write(2, f"Error: {error.debug}\n".encode(errors="replace"))
        code = error.code
    except Intercepted as signalled:
        return _end_by_signal(signalled, journal)
    except Exception as error:  # noqa: BLE001 - a Panic, or a mistake of ours: upstream dies of either in the same way
        return _panic(error, journal)
    _say_goodbye(journal, code)
    return code


def _run(argv: Sequence[str], journal: Journal) -> int:
    try:
        arguments = args.parse(argv)
    except args.ArgumentError as error:
        text = f"Arguments parsing error: {error} \n\nFor more information try --help."
        raise Fatal(text, debug=f"ParseArguments({error.debug})", code=exits.BAD_ARGUMENTS) from error
    if (printed := _printed(arguments)) is not None:
        os.write(1, printed.encode())
        return exits.OK
    _set_up_log(arguments, journal)
    journal.info(f"Running {args.VERSION_LINE}")
    exits.intercept_signals(journal)
    from firkin.engine.engine import run

    return run(arguments, journal)


def _printed(arguments: args.Arguments) -> str | None:
    """What a flag asks to be printed in place of running. Raises: Fatal."""
    if "help" in arguments.flags:
        return f"{args.VERSION_LINE}\n\n{args.help_text()}\n"
    if "version" in arguments.flags:
        return f"{args.VERSION_LINE}\n\n"
    if "snapshot-version" in arguments.flags:
        from firkin.engine.snapshot.format import VERSION_TEXT

        return f"{VERSION_TEXT}\n"
    if (path := arguments.get("describe-snapshot")) is not None:
        return f"{_describe(path)}\n"
    return None


def _describe(path: str) -> str:
    from firkin.engine.faults import os_debug, os_text
    from firkin.engine.snapshot.format import BadStateFile, describe

    try:
        return describe(path)
    except OSError as error:
        what, debug = f"Unable to open snapshot state file: {os_text(error)}", f"OpenSnapshot({os_debug(error)})"
    except BadStateFile as error:
        what, debug = f"Invalid data format version of snapshot file: {error}", "SnapshotVersion"
    raise Fatal(f"When printing Snapshot Data format: {what}", debug=f"PrintSnapshotDataFormat({debug})")


def _set_up_log(arguments: args.Arguments, journal: Journal) -> None:
    args.check_instance_id(arguments.value("id"))
    journal.instance_id = arguments.value("id")
    if (level := arguments.get("level")) is not None:
        try:
            journal.level = parse_level(level)
        except UnknownLevel as error:
            why = f"Failed to parse string to level filter: {level}"
            text = f"Invalid value for logger level: {why}.Possible values: [Error, Warning, Info, Debug]"
            debug = f'InvalidLogLevel(LevelFilterFromStrError("{level}"))'
            raise Fatal(text, debug=debug, code=exits.BAD_LEVEL) from error
    journal.show_level = "show-level" in arguments.flags
    journal.show_origin = "show-log-origin" in arguments.flags
    journal.module = arguments.get("module")
    if (path := arguments.get("log-path")) is not None:
        _open_log(path, journal)


def _open_log(path: str, journal: Journal) -> None:
    try:
        journal.open(path)
    except OSError as error:
        from firkin.engine.faults import os_debug, os_text

        text = f"Could not initialize logger: Failed to open target file: {os_text(error)}"
        raise Fatal(text, debug=f"LoggerInitialization(LoggerUpdateError({os_debug(error)}))") from error


def _end_by_signal(signalled: Intercepted, journal: Journal) -> int:
    if signalled.code is None:
        exits.die_of(signalled.number)
    elif signalled.code != exits.UNEXPECTED:
        journal.error(f"Shutting down VM after intercepting signal {signalled.number}, code {signalled.cause}.")
    return signalled.code or exits.GENERIC


def _panic(error: Exception, journal: Journal) -> int:
    """Die as Rust does of a panic: with a line that says where, and by abort."""
    if not isinstance(error, Panic):
        import traceback

        traceback.print_exception(error)
    journal.error(f"Firecracker panicked at {_place(error.__traceback__)}:\n{error}")
    exits.die_of(signal.SIGABRT)
    return exits.PANIC


def _place(trace: TracebackType | None) -> str:
    """`file:line:column` of where an error was raised."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown:0:0"
    code = trace.tb_frame.f_code
    column = list(code.co_positions())[trace.tb_lasti // 2][2]
    return f"{source(code.co_filename)}:{trace.tb_lineno}:{(column or 0) + 1}"


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
