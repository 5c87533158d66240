from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine import args
from firkin.engine.exits import Panic


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
        (
            ["--accel", "xen"],
            "The argument 'accel' must be one of auto, kvm, tcg, not 'xen'.",
            'InvalidValue("accel", "xen")',
        ),
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


@pytest.mark.parametrize("text", ["a-1", "é", "a" * 64])
def test_instance_ids_are_letters_digits_and_hyphens(text: str) -> None:
    args.check_instance_id(text)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "InvalidLen(0, 1, 64)"),
        ("a" * 65, "InvalidLen(65, 1, 64)"),
        ("12_3", "InvalidChar('_', 2)"),
        ("'", "InvalidChar('\\'', 0)"),
    ],
)
def test_other_instance_ids_end_in_a_panic(text: str, mistake: str) -> None:
    with pytest.raises(Panic) as caught:
        args.check_instance_id(text)
    assert str(caught.value) == f"Invalid instance ID: {mistake}"


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("+7", 7), ("00018446744073709551615", 2**64 - 1)])
def test_numbers_are_read_as_rust_reads_them(text: str, number: int) -> None:
    assert args.parse(["--mmds-size-limit", text]).number("mmds-size-limit") == number


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "Empty"),
        ("x", "InvalidDigit"),
        ("-1", "InvalidDigit"),
        ("1_0", "InvalidDigit"),
        ("18446744073709551616", "PosOverflow"),
        ("9" * 5000, "PosOverflow"),
    ],
)
def test_what_is_no_number_ends_in_a_panic(text: str, mistake: str) -> None:
    with pytest.raises(Panic) as caught:
        args.parse(["--start-time-us", text]).start_times()
    what = "'start-time-us' parameter expected to be of 'u64' type."
    assert str(caught.value) == f"{what}: ParseIntError {{ kind: {mistake} }}"


def test_times_that_were_not_given_are_none() -> None:
    times = args.parse(["--start-time-us", "5", "--parent-cpu-time-us", "7"]).start_times()
    assert times == args.StartTimes(start_us=5, start_cpu_us=None, parent_cpu_us=7)


@given(st.lists(st.sampled_from([f"--{option.name}" for option in args.OPTIONS]) | st.text(max_size=8), max_size=6))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    try:
        arguments = args.parse(words)
    except args.ArgumentError:
        return
    assert arguments.flags | arguments.values.keys() <= {option.name for option in args.OPTIONS}
