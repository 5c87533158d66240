"""The command line's outer edge: exit codes, one line per error, lazy verbs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from firkin.cli import VERBS, cli, main, report
from firkin.cli.output import ago
from firkin.cli.run import memory_mib
from firkin.errors import HostError, NotFound


def test_an_error_is_two_lines_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(HostError("disk: full", hint="df -h")) == 125
    assert report(NotFound("image", "nosuch")) == 2
    assert capsys.readouterr().err.splitlines()[:2] == ["error: disk: full", "hint: df -h"]


def test_what_a_guest_made_an_error_say_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    report(HostError("console:\n\tlogin\x1b[2J\r\n", hint="\x9b"))
    assert capsys.readouterr().err == "error: console:\n        login\\x1b[2J\nhint: \\x9b\n"


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("ps", "'ps' is no verb of firkin", "firkin ls"),
        ("inspekt x", "'inspekt' is no verb of firkin", "firkin inspect"),
        ("xyzzy", "'xyzzy' is no verb of firkin", "firkin --help"),
        ("ls --nosuch", "No such option '--nosuch'", "firkin ls --help"),
        ("kernel nosuch", "No such command 'nosuch'", "firkin kernel --help"),
        ("stop", "Missing argument 'NAME...'", "firkin stop --help"),
        ("stop -t -1 x", "Invalid value for '-t' / '--time': -1.0 is not in the range x>=0", "firkin stop --help"),
    ],
)
def test_what_is_typed_wrong_is_told_in_two_lines(
    words: str, error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\nhint: {hint}\n"


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "firkin.cli", "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nothing_typed_is_a_wish_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Usage: firkin [OPTIONS] COMMAND")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_in_a_line_what_it_does(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.hidden or not command.get_short_help_str(limit=62).endswith("...")
    unexplained = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help and not parameter.hidden
    ]
    assert unexplained == []


@pytest.mark.parametrize(("text", "mib"), [("256", 256), ("256m", 256), ("1g", 1024), ("2GiB", 2048), ("0", 0)])
def test_memory_is_mib_or_has_a_suffix(text: str, mib: int) -> None:
    context = click.Context(click.Command("x"))
    assert memory_mib(context, click.Option(["--memory"]), text) == mib


@pytest.mark.parametrize("text", ["", "much", "1t", "1.5g"])
def test_memory_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        memory_mib(click.Context(click.Command("x")), click.Option(["--memory"]), text)


def test_importing_the_package_loads_no_room() -> None:
    code = "import sys, firkin; print([m for m in sys.modules if m.startswith('firkin.') or m == 'asyncio'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_listing_does_not_load_what_it_does_not_need() -> None:
    code = "import sys, firkin.cli.machine; print([m for m in ('asyncio', 'rich', 'http.client') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_closed_streams_are_taken_by_no_file_of_ours(tmp_path: Path) -> None:
    code = "import os, firkin.cli; firkin.cli._open_closed_streams(); os.write(1, b'x'); os.fstat(0); os.fstat(2)"
    subprocess.run(["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=True)
    listing = f'FIRKIN_HOME={tmp_path} "$0" -m firkin.cli ls <&- >&-'
    subprocess.run(["sh", "-c", listing, sys.executable], check=True)


def test_every_verb_has_a_module() -> None:
    assert all(target.startswith("firkin.cli.") and ":" in target for target in VERBS.values())


def test_past_times_read_as_people_say_them() -> None:
    import time

    assert ago(None) == "-"
    assert ago(time.time() - 3700) == "1 hour ago"
