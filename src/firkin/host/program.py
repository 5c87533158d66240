"""Long programs that must not outlive us: their output is read as it comes, and they die when we do."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from firkin.errors import NoSpace, ProgramFailed
from firkin.host.run import find

TAIL_LINES = 200
GRACE_S = 5.0
DISK_FULL = ("No space left on device", "Disk quota exceeded", "You don't have enough free space")


def run_bound(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input_file: Path | None = None,
    death_signal: str = "KILL",
    on_line: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run a program whose life is bound to ours, and pass on each line it writes.

    On any error, Ctrl-C included, its process group gets SIGTERM, and SIGKILL after `GRACE_S` seconds. Should we be
    killed outright, the kernel sends the program `death_signal` (prctl(2), PR_SET_PDEATHSIG): TERM suits those that
    then end their own children.

    Raises:
        ProgramMissing: it is not installed.
        ProgramFailed: it exited non-zero.
        NoSpace: it exited non-zero and blamed a full disk.
    """
    find(argv[0])
    command = [find("setpriv"), "--pdeathsig", death_signal, "--", find(argv[0]), *argv[1:]]
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    source = os.open(input_file or os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        child = subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=None if env is None else dict(env), cwd=cwd, process_group=0,
        )  # fmt: skip
    finally:
        os.close(source)
    try:
        assert child.stdout is not None  # PIPE above
        with child.stdout as lines:
            for line in lines:
                tail.append(line)
                on_line(line.rstrip())
        returncode = child.wait()
    except BaseException:
        _end_group(child)
        raise
    if returncode != 0:
        _end_group(child)
        raise failure(argv, returncode, "".join(tail))


def failure(argv: Sequence[str], returncode: int, output: str) -> NoSpace | ProgramFailed:
    """The error for a program that did not end well, by what it said."""
    if any(sign in output for sign in DISK_FULL):
        return NoSpace(f"{argv[0]}: disk full", hint="free some space, or set FIRKIN_HOME elsewhere")
    return ProgramFailed(argv, returncode, output)


def _end_group(child: subprocess.Popen[str]) -> None:
    """The leader may be gone and its children not: signal the group until nobody is left in it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE_S if number == signal.SIGTERM else None)
        except subprocess.TimeoutExpired:
            continue
    child.wait()
