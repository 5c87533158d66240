"""The command line, in Firecracker's own grammar: `--name value` only, nothing abbreviated or given twice. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from firkin.engine.exits import Panic
from firkin.fcapi.version import VERSION

DEFAULT_API_SOCK = "/run/firecracker.socket"
DEFAULT_ID = "anonymous-instance"
DEFAULT_PAYLOAD_LIMIT = 51200
ACCELERATORS = ("auto", "kvm", "tcg")
_MAX_ID = 64
_MAX_U64 = 2**64 - 1


class Option(NamedTuple):
    """One argument: with a value or as a bare flag."""

    name: str
    help: str
    takes_value: bool = False
    default: str | None = None
    requires: str | None = None
    forbids: str | None = None
    choices: tuple[str, ...] = ()


OPTIONS = (
    Option(
        "accel",
        "(firkin's own) How guests are run: auto, kvm or tcg.",
        takes_value=True,
        default="auto",
        choices=ACCELERATORS,
    ),
    Option("api-sock", "Path of the unix socket that serves the API.", takes_value=True, default=DEFAULT_API_SOCK),
    Option("boot-timer", "Report how long the guest took to boot."),
    Option("config-file", "Path of a JSON file with the whole configuration; boots at once.", takes_value=True),
    Option("describe-snapshot", "Print the format version of a snapshot's state file.", takes_value=True),
    Option("enable-pci", "Offer devices over PCI."),
    Option("help", "Show this help."),
    Option(
        "http-api-max-payload-size",
        "Largest body of a request, in bytes.",
        takes_value=True,
        default=str(DEFAULT_PAYLOAD_LIMIT),
    ),
    Option("id", "Identifier of the microVM.", takes_value=True, default=DEFAULT_ID),
    Option("level", "Journal level.", takes_value=True),
    Option("log-path", "Path of a file or named pipe for the log.", takes_value=True),
    Option("metadata", "Path of a JSON file with metadata for the guest.", takes_value=True),
    Option("metrics-path", "Path of a file or named pipe for metrics.", takes_value=True),
    Option("mmds-size-limit", "Largest metadata store, in bytes.", takes_value=True),
    Option("module", "Journal only what comes from modules with this prefix.", takes_value=True),
    Option("no-api", "Serve no API.", requires="config-file"),
    Option("no-seccomp", "Run without system call filters. Not recommended.", forbids="seccomp-filter"),
    Option("parent-cpu-time-us", "CPU time of the parent process, in microseconds.", takes_value=True),
    Option("seccomp-filter", "Path of a custom system call filter.", takes_value=True, forbids="no-seccomp"),
    Option("show-level", "Show the level in each line of the log."),
    Option("show-log-origin", "Show file and line in each line of the log."),
    Option("snapshot-version", "Print the format version of the snapshots that are made and loaded."),
    Option("start-time-cpu-us", "CPU time at the start of the process, in microseconds.", takes_value=True),
    Option("start-time-us", "Monotonic time at the start of the process, in microseconds.", takes_value=True),
    Option("version", "Print the version."),
)
_BY_NAME = {option.name: option for option in OPTIONS}

VERSION_LINE = f"Firecracker v{VERSION}"


class ArgumentError(Exception):
    """The command line breaks the grammar. `variant` is the Rust name of the mistake, for the line on stderr."""

    def __init__(self, variant: str, text: str, *names: str) -> None:
        super().__init__(text)
        self.debug = f"{variant}({', '.join(_rust_string(name) for name in names)})"


class Arguments(NamedTuple):
    """What was given, with defaults filled in for what was not."""

    values: dict[str, str]
    flags: frozenset[str]

    def get(self, name: str) -> str | None:
        return self.values.get(name, _BY_NAME[name].default)

    def value(self, name: str) -> str:
        """An option that has a default."""
        return self.values.get(name, _BY_NAME[name].default or "")

    def number(self, name: str, kind: str = "usize") -> int | None:
        """An option that is a number of 64 bits; None if it was not given and has no default.

        Raises:
            Panic: it is none, as Rust says it of a `kind`.
        """
        text = self.get(name)
        if text is None:
            return None
        if (mistake := _number_mistake(text)) is not None:
            what = f"'{name}' parameter expected to be of '{kind}' type."
            raise Panic(f"{what}: ParseIntError {{ kind: {mistake} }}")
        return int(text)

    def start_times(self) -> StartTimes:
        """Raises: Panic, for one that is no number."""
        return StartTimes(
            self.number("start-time-us", "u64"),
            self.number("start-time-cpu-us", "u64"),
            self.number("parent-cpu-time-us", "u64"),
        )


class StartTimes(NamedTuple):
    """When the process began, as who started it says; in microseconds, None where nothing was said."""

    start_us: int | None
    start_cpu_us: int | None
    parent_cpu_us: int | None


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments after the program's name; what follows a `--` is left alone.

    Raises:
        ArgumentError: with Firecracker's own text.
    """
    given = list(argv[: argv.index("--")] if "--" in argv else argv)
    for shortcut, name in (("--help", "help"), ("-h", "help"), ("--version", "version")):
        if shortcut in given:
            return Arguments({}, frozenset({name}))
    values: dict[str, str] = {}
    flags: set[str] = set()
    words = iter(given)
    for word in words:
        option = _known(word)
        if option.name in values or option.name in flags:
            text = f"The argument '{option.name}' was provided more than once."
            raise ArgumentError("DuplicateArgument", text, option.name)
        if option.takes_value:
            values[option.name] = _value(option, next(words, None))
        else:
            flags.add(option.name)
    _check_company(values.keys() | flags)
    return Arguments(values, frozenset(flags))


def help_text() -> str:
    """The table of options, in alphabetical order."""
    heads = {option: f"  --{option.name}" + (f" <{option.name}>" if option.takes_value else "") for option in OPTIONS}
    width = max(len(head) for head in heads.values())
    lines = [
        f"{head:{width}}   {option.help}" + (f' [default: "{option.default}"]' if option.default else "")
        for option, head in heads.items()
    ]
    return "\n".join(["optional arguments:", *lines])


def check_instance_id(text: str) -> None:
    """1 to 64 bytes of letters, digits and hyphens. Raises: Panic, else."""
    size = len(text.encode(errors="surrogateescape"))
    if not 1 <= size <= _MAX_ID:
        raise Panic(f"Invalid instance ID: InvalidLen({size}, 1, {_MAX_ID})")
    for place, char in enumerate(text):
        if char != "-" and not char.isalnum():
            raise Panic(f"Invalid instance ID: InvalidChar({_rust_char(char)}, {place})")


def _known(word: str) -> Option:
    name = word.removeprefix("--")
    option = _BY_NAME.get(name) if word.startswith("--") else None
    if option is None:
        text = f"Found argument '{name}' which wasn't expected, or isn't valid in this context."
        raise ArgumentError("UnexpectedArgument", text, name)
    return option


def _value(option: Option, word: str | None) -> str:
    if word is None or word.startswith("--"):
        text = f"The argument '{option.name}' requires a value, but none was supplied."
        raise ArgumentError("MissingValue", text, option.name)
    if option.choices and word not in option.choices:
        text = f"The argument '{option.name}' must be one of {', '.join(option.choices)}, not '{word}'."
        raise ArgumentError("InvalidValue", text, option.name, word)
    return word


def _check_company(given: set[str]) -> None:
    for option in OPTIONS:
        if option.name not in given:
            continue
        if option.requires is not None and option.requires not in given:
            text = f"Argument '{option.requires}' required, but not found."
            raise ArgumentError("MissingArgument", text, option.requires)
        if option.forbids in given:
            text = f"Argument '{option.forbids}' cannot be used together with argument '{option.name}'."
            raise ArgumentError("ForbiddenArgument", text, option.forbids, option.name)


def _number_mistake(text: str) -> str | None:
    digits = text.removeprefix("+")
    if not text:
        return "Empty"
    if not (digits.isascii() and digits.isdigit()):
        return "InvalidDigit"
    significant = digits.lstrip("0") or "0"
    too_large = len(significant) > len(str(_MAX_U64)) or int(significant) > _MAX_U64
    return "PosOverflow" if too_large else None


def _rust_char(char: str) -> str:
    return "'\\''" if char == "'" else f"'{_rust_string(char)[1:-1]}'"


def _rust_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
