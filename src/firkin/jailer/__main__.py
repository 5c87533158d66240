"""firkin-jailer's start: decide what the jail is to be, then make it and become the program in it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from firkin.jailer import args, build, cgroups, launch, plan, request, runtime
from firkin.jailer.faults import JailerError, os_text

_MISC = "/proc/misc"


def main(argv: Sequence[str] | None = None) -> int:
    """Jail a program by these arguments (default: the process's own); returns only if there is nothing to run."""
    clock = launch.Clock.now()
    _close_inherited()
    os.environ.clear()
    try:
        return _run(args.parse(sys.argv[1:] if argv is None else argv), clock)
    except JailerError as error:
        os.write(2, f"{error}\nError: {error.debug}\n".encode(errors="surrogateescape"))
        return 1


def _run(arguments: args.Arguments, clock: launch.Clock) -> int:
    if arguments.flags & {"help", "version"}:
        os.write(1, (args.help_text() if "help" in arguments.flags else args.version_text()).encode())
        return 0
    _carry_out(_decide(arguments), clock)
    return 0


def _decide(arguments: args.Arguments) -> plan.Jail:
    wanted = request.read(arguments)
    mounts = _read(cgroups.MOUNTS) if wanted.cgroups or wanted.cgroup_version == 2 else ""
    steps = cgroups.plan(wanted, cgroups.find_hierarchies(mounts, _read_if_there))
    misc = _read_if_there(_MISC)
    return plan.plan(wanted, runtime.find(wanted.exec_file), steps, misc=misc, release=os.uname().release)


def _carry_out(jail: plan.Jail, clock: launch.Clock) -> None:
    wanted = jail.request
    build.copy_program(wanted)
    if wanted.netns is not None:
        launch.join_netns(wanted.netns)
    launch.set_limits(wanted.limits)
    cgroups.carry_out(jail.cgroups)  # the files are out of reach once we are in
    null = launch.open_null() if wanted.daemonize else -1
    build.enter(jail)
    used_us = launch.cpu_us() - clock.cpu_us
    if wanted.daemonize:
        used_us += launch.daemonize(null)
    launch.become(jail, clock, used_us)


def _close_inherited() -> None:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib costs start-up time
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(int(name))


def _read(path: str) -> str:
    try:
        with open(path) as stream:  # noqa: PTH123 - pathlib costs start-up time
            return stream.read()
    except OSError as error:
        text = f"Failed to open file {path}: {os_text(error)}"
        raise JailerError("FileOpen", text, path, error) from error


def _read_if_there(path: str) -> str:
    try:
        return _read(path)
    except JailerError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
