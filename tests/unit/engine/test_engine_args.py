from __future__ import annotations

import pytest

from firkin.engine import args


@pytest.mark.parametrize(
    ("argv", "text", "debug"),
    [
        (
            ["--foo"],
            "Found argument 'foo' which wasn't expected, or isn't valid in this context.",
            'UnexpectedArgument("foo")',
        ),
        (
            ["--id=x"],
            "Found argument 'id=x' which wasn't expected, or isn't valid in this context.",
            'UnexpectedArgument("id=x")',
        ),
        (["word"], "Found argument 'word' which wasn't expected, or isn't valid in this context.", None),
        (["--id"], "The argument 'id' requires a value, but none was supplied.", 'MissingValue("id")'),
        (["--id", "--no-api"], "The argument 'id' requires a value, but none was supplied.", 'MissingValue("id")'),
        (["--id", "a", "--id", "b"], "The argument 'id' was provided more than once.", 'DuplicateArgument("id")'),
        (["--no-api", "--no-api"], "The argument 'no-api' was provided more than once.", None),
        (["--no-api"], "Argument 'config-file' required, but not found.", 'MissingArgument("config-file")'),
        (
            ["--no-seccomp", "--seccomp-filter", "f"],
            "Argument 'seccomp-filter' cannot be used together with argument 'no-seccomp'.",
            'ForbiddenArgument("seccomp-filter", "no-seccomp")',
        ),
    ],
)
def test_each_mistake_has_upstreams_words(argv: list[str], text: str, debug: str | None) -> None:
    with pytest.raises(args.ArgumentError) as caught:
        args.parse(argv)
    assert str(caught.value) == text
    assert debug is None or caught.value.debug == debug


def test_values_flags_and_defaults() -> None:
    arguments = args.parse(["--api-sock", "/s", "--no-api", "--config-file", "f", "--show-level"])
    assert arguments.value("api-sock") == "/s"
    assert arguments.value("id") == "anonymous-instance"
    assert arguments.value("http-api-max-payload-size") == "51200"
    assert arguments.get("log-path") is None
    assert arguments.flags == {"no-api", "show-level"}


def test_what_follows_two_dashes_is_left_alone() -> None:
    assert args.parse(["--id", "a", "--", "--nonsense"]).values == {"id": "a"}


@pytest.mark.parametrize("shortcut", ["--help", "-h", "--version"])
def test_help_and_version_win_over_every_mistake(shortcut: str) -> None:
    flags = args.parse(["--nonsense", shortcut]).flags
    assert flags == {"version"} if shortcut == "--version" else {"help"}


def test_help_lists_every_option_in_order() -> None:
    lines = args.help_text().splitlines()
    assert lines[0] == "optional arguments:"
    names = [line.split()[0] for line in lines[1:]]
    assert names == sorted(names)
    assert any('[default: "/run/firecracker.socket"]' in line for line in lines)


@pytest.mark.parametrize(
    ("text", "good"), [("a-1", True), ("", False), ("a" * 65, False), ("a_b", False), ("é", False)]
)
def test_instance_ids(text: str, good: bool) -> None:
    assert args.is_instance_id(text) is good
