"""The command line that /proc shows can be replaced, within its room."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent("""
    import sys
    from firkin.errors import HostError
    from firkin.host.process import ProcessRef, show_as, with_argument
    import os
    try:
        show_as(sys.argv[2:])
    except HostError as error:
        print(error)
    print(with_argument("--id", sys.argv[1]) == [ProcessRef.of(os.getpid())])
    print(open("/proc/self/cmdline").read().rstrip("\\0").split("\\0")[:3])
""")


def show(*argv: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, "machine-77", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_process_is_found_by_the_arguments_that_it_shows() -> None:
    assert show("engine", "--id", "machine-77") == ["True", "['engine', '--id', 'machine-77']"]


def test_what_is_left_of_the_former_ones_is_wiped_out() -> None:
    assert show("e") == ["False", "['e']"]


def test_more_than_there_is_room_for_is_refused() -> None:
    program = PROGRAM.replace("sys.argv[2:]", '["x" * 100_000]')
    done = subprocess.run([sys.executable, "-c", program, "y"], capture_output=True, text=True, check=True)
    first, found, shown = done.stdout.splitlines()
    assert "does not fit" in first
    assert (found, shown) == ("False", str([sys.executable, "-c", program]))
