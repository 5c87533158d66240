from __future__ import annotations

import pytest

from firkin.fcapi.version import VERSION
from firkin.jailer import args
from firkin.jailer.faults import JailerError

NEEDED = ["--id", "a", "--exec-file", "/f", "--uid", "1", "--gid", "2"]


@pytest.mark.parametrize(
    ("argv", "text", "debug"),
    [
        ([], "Argument 'exec-file' required, but not found.", 'MissingArgument("exec-file")'),
        (NEEDED[:-2], "Argument 'gid' required, but not found.", 'MissingArgument("gid")'),
        (["--", *NEEDED], "Argument 'exec-file' required, but not found.", 'MissingArgument("exec-file")'),
        (
            ["--foo"],
            "Found argument 'foo' which wasn't expected, or isn't valid in this context.",
            'UnexpectedArgument("foo")',
        ),
        (["x"], "Found argument 'x' which wasn't expected, or isn't valid in this context.", 'UnexpectedArgument("x")'),
        (["--node", "0"], "Found argument 'node' which wasn't expected, or isn't valid in this context.", None),
        (["--id"], "The argument 'id' requires a value, but none was supplied.", 'MissingValue("id")'),
        (["--cgroup", "--id"], "The argument 'cgroup' requires a value, but none was supplied.", None),
        ([*NEEDED, "--uid", "3"], "The argument 'uid' was provided more than once.", 'DuplicateArgument("uid")'),
        (["--daemonize", "--daemonize"], "The argument 'daemonize' was provided more than once.", None),
    ],
)
def test_each_mistake_has_upstreams_words(argv: list[str], text: str, debug: str | None) -> None:
    with pytest.raises(JailerError) as caught:
        args.parse(argv)
    assert str(caught.value) == f"Failed to parse arguments: {text}"
    assert debug is None or caught.value.debug == f"ArgumentParsing({debug})"


def test_values_defaults_and_what_belongs_to_the_program() -> None:
    repeated = ["--cgroup", "a.b=1", "--daemonize", "--cgroup", "c.d=2"]
    arguments = args.parse([*NEEDED, *repeated, "--", "--config-file", "/c", "--", "--id"])
    assert arguments.all("cgroup") == ("a.b=1", "c.d=2")
    assert arguments.all("resource-limit") == ()
    assert arguments.get("netns") is None
    assert (arguments.value("chroot-base-dir"), arguments.value("cgroup-version")) == ("/srv/jailer", "1")
    assert arguments.flags == {"daemonize"}
    assert arguments.extra == ("--config-file", "/c", "--", "--id")


@pytest.mark.parametrize("shortcut", ["--help", "-h", "--version"])
def test_help_and_version_win_over_every_mistake(shortcut: str) -> None:
    name = "version" if shortcut == "--version" else "help"
    assert args.parse(["--nonsense", shortcut]).flags == {name}


def test_help_after_two_dashes_is_the_programs() -> None:
    assert args.parse([*NEEDED, "--", "--help"]).flags == frozenset()


def test_the_version_is_the_engines() -> None:
    assert args.version_text() == f"Jailer v{VERSION}\n\n"


def test_help_lists_every_option_once() -> None:
    for option in args.OPTIONS:
        assert args.help_text().count(f"  --{option.name} ") == 1
