"""The command line: `--name value` only; `--cgroup` and `--resource-limit` may come again, the rest once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from firkin.jailer.faults import Debug, JailerError

VERSION = "1.16.1"  # of the Firecracker whose jailer this stands in for
DEFAULT_BASE = "/srv/jailer"
DEFAULT_CGROUP_VERSION = "1"


class Option(NamedTuple):
    """One argument: a bare flag unless it takes a value."""

    name: str
    help: str
    takes_value: bool = True
    required: bool = False
    repeats: bool = False
    default: str | None = None


OPTIONS = (
    Option("cgroup", "A cgroup file and its value, as <file>=<value>; may be given again.", repeats=True),
    Option("cgroup-version", "Version of the cgroups to use, 1 or 2.", default=DEFAULT_CGROUP_VERSION),
    Option("chroot-base-dir", "Folder that holds all jails.", default=DEFAULT_BASE),
    Option("daemonize", "Leave the terminal: a new session, standard streams on /dev/null.", takes_value=False),
    Option("exec-file", "Program to run in the jail.", required=True),
    Option("gid", "Group that the program runs as.", required=True),
    Option("help", "Show this help.", takes_value=False),
    Option("id", "Identifier of the jail and the microVM.", required=True),
    Option("netns", "Path of the network namespace to join."),
    Option("new-pid-ns", "Run the program in a new PID namespace.", takes_value=False),
    Option("parent-cgroup", "Cgroup to make the microVM's own in; by default named as the program."),
    Option("resource-limit", "A limit, as fsize=<bytes> or no-file=<number>; may be given again.", repeats=True),
    Option("uid", "User that the program runs as.", required=True),
    Option("version", "Print the version.", takes_value=False),
)
_BY_NAME = {option.name: option for option in OPTIONS}


class Arguments(NamedTuple):
    """What was given. `extra` is what follows a `--`: the program's own."""

    values: dict[str, tuple[str, ...]]
    flags: frozenset[str] = frozenset()
    extra: tuple[str, ...] = ()

    def all(self, name: str) -> tuple[str, ...]:
        return self.values.get(name, ())

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), _BY_NAME[name].default)

    def value(self, name: str) -> str:
        """An option that is required or has a default."""
        return self.get(name) or ""


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments after the program's name.

    Raises:
        JailerError: they break the grammar, or a required one is missing.
    """
    end = list(argv).index("--") if "--" in argv else len(argv)
    given, extra = argv[:end], tuple(argv[end + 1 :])
    for shortcut, name in (("--help", "help"), ("-h", "help"), ("--version", "version")):
        if shortcut in given:
            return Arguments({}, frozenset({name}))
    values: dict[str, tuple[str, ...]] = {}
    flags: set[str] = set()
    words = iter(given)
    for word in words:
        option = _known(word)
        if option.name in flags or (option.name in values and not option.repeats):
            raise _mistake("DuplicateArgument", "The argument '{}' was provided more than once.", option.name)
        if option.takes_value:
            values[option.name] = (*values.get(option.name, ()), _value(option, next(words, None)))
        else:
            flags.add(option.name)
    for option in OPTIONS:
        if option.required and option.name not in values:
            raise _mistake("MissingArgument", "Argument '{}' required, but not found.", option.name)
    return Arguments(values, frozenset(flags), extra)


def version_text() -> str:
    return f"Jailer v{VERSION}\n\n"


def help_text() -> str:
    """The options, required ones first, each table in alphabetical order."""
    heads = {option: f"  --{option.name}" + (f" <{option.name}>" if option.takes_value else "") for option in OPTIONS}
    width = max(len(head) for head in heads.values())

    def table(*, required: bool) -> list[str]:
        return [
            f"{head:{width}}   {option.help}" + (f' [default: "{option.default}"]' if option.default else "")
            for option, head in heads.items()
            if option.required is required
        ]

    lines = ["required arguments:", *table(required=True), "", "optional arguments:", *table(required=False)]
    last = "Any arguments after the -- separator will be supplied to the jailed binary.\n"
    return version_text() + "\n".join(lines) + "\n\n" + last + "\n"


def _known(word: str) -> Option:
    name = word.removeprefix("--")
    option = _BY_NAME.get(name) if word.startswith("--") else None
    if option is None:
        text = "Found argument '{}' which wasn't expected, or isn't valid in this context."
        raise _mistake("UnexpectedArgument", text, name)
    return option


def _value(option: Option, word: str | None) -> str:
    if word is None or word.startswith("--"):
        text = "The argument '{}' requires a value, but none was supplied."
        raise _mistake("MissingValue", text, option.name)
    return word


def _mistake(variant: str, text: str, name: str) -> JailerError:
    inner = JailerError(variant, text.format(name), name)
    return JailerError("ArgumentParsing", f"Failed to parse arguments: {inner}", Debug(inner.debug))
