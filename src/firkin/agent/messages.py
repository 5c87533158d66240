"""What the agent's payloads mean. The guest's bytes are hostile, so every length is checked."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from firkin.agent.frames import VERSION, Frame, Kind
from firkin.errors import AgentError

HELLO_MAGIC = 0x4E494B46
MAX_HOSTNAME = 64
MAX_KEPT_ARGV = 1024
MAX_REASON = 1024  # bytes of an error's text that are shown
KEPT_TTY = 256

_HELLO = struct.Struct("<IHHIIIIII")
_TWO_U32 = struct.Struct("<II")
_ERROR = struct.Struct("<HI")
_U32 = struct.Struct("<I")
_KEPT = struct.Struct("<IIII")


class ErrorCode(IntEnum):
    """Why the agent refused."""

    PROTOCOL = 1
    VERSION = 2
    LIMIT = 3
    NOT_FOUND = 4
    NOT_EXECUTABLE = 5
    WORKDIR = 6
    USER = 7
    REFUSED = 8
    SYSTEM = 9


@dataclass(frozen=True, slots=True)
class Hello:
    """Who calls, and how its boot went: milliseconds since the kernel started its clock."""

    lowest_version: int = VERSION
    highest_version: int = VERSION
    pid: int = 0
    init_ms: int = 0
    root_ms: int = 0
    network_ms: int = 0
    ready_ms: int = 0
    hostname: str = ""

    def encode(self, kind: Kind = Kind.HELLO) -> bytes:
        """As a frame, HELLO or HELLO_ACK."""
        name = self.hostname.encode()
        times = (self.init_ms, self.root_ms, self.network_ms, self.ready_ms)
        fixed = _HELLO.pack(HELLO_MAGIC, self.lowest_version, self.highest_version, self.pid, *times, len(name))
        return Frame(kind, fixed + name).encode()

    @classmethod
    def decode(cls, frame: Frame) -> Hello:
        """Read HELLO or HELLO_ACK.

        Raises:
            AgentError: it is neither, is cut short, or speaks no version that we do.
        """
        if frame.kind not in (Kind.HELLO, Kind.HELLO_ACK):
            raise AgentError(f"agent: {frame.kind.name} where a hello belongs")
        magic, lowest, highest, pid, init, root, network, ready, length = _unpack(_HELLO, frame, exact=False)
        name = frame.payload[_HELLO.size :]
        if magic != HELLO_MAGIC or length != len(name) or length > MAX_HOSTNAME:
            raise AgentError("agent: a hello that makes no sense")
        if not lowest <= VERSION <= highest:
            raise AgentError(
                f"agent: speaks versions {lowest} to {highest} of the protocol, not {VERSION}",
                hint="restart the machine: it was booted by another version of firkin",
            )
        return cls(lowest, highest, pid, init, root, network, ready, name.decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a program ended: by itself with `code`, or by `signal`. One of them is None."""

    code: int | None = None
    signal: int | None = None

    @property
    def returncode(self) -> int:
        """As a shell would say it: the code, or 128 + the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


class KeptState(IntEnum):
    """What became of a kept program."""

    RUNNING = 0
    EXITED = 1
    KILLED = 2


@dataclass(frozen=True, slots=True)
class KeptProgram:
    """A program that outlives its connection. `status` is None while it runs, `tty` tells whether it has a terminal."""

    pid: int
    argv: tuple[bytes, ...]
    status: ExitStatus | None = None
    tty: bool = False


class ExecRefused(AgentError):
    """The program did not start; `returncode` is what a shell would say (127: not found, 126: cannot run)."""

    def __init__(self, message: str, returncode: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.returncode = self.exit_code = returncode


def decode_started(frame: Frame) -> tuple[int, int]:
    """(pid in the guest, bytes of stdin that may be sent)."""
    pid, window = _unpack(_TWO_U32, frame)
    return pid, window


def decode_window(frame: Frame) -> int:
    """Bytes of stdin that may be sent beyond those before."""
    (credit,) = _unpack(_U32, frame)
    return credit


def decode_exit(frame: Frame) -> ExitStatus:
    """How the program ended."""
    kind, value = _unpack(_TWO_U32, frame)
    if kind > 1 or value > 255:
        raise AgentError(f"agent: an exit of kind {kind} with {value}")
    return ExitStatus(signal=value) if kind else ExitStatus(code=value)


def decode_kept(frame: Frame) -> list[KeptProgram]:
    """The kept programs, oldest first."""
    programs, at = [], 0
    while at < len(frame.payload):
        if len(frame.payload) - at < _KEPT.size:
            raise AgentError("agent: a list of programs that is cut short")
        pid, state, value, length = _KEPT.unpack_from(frame.payload, at)
        at += _KEPT.size
        tty, state = bool(state & KEPT_TTY), state & ~KEPT_TTY
        if state > KeptState.KILLED or value > 255 or length > min(MAX_KEPT_ARGV, len(frame.payload) - at):
            raise AgentError("agent: a list of programs that makes no sense")
        argv = tuple(frame.payload[at : at + length].rstrip(b"\0").split(b"\0"))
        at += length
        programs.append(KeptProgram(pid, argv, _kept_status(state, value), tty))
    return programs


def _kept_status(state: int, value: int) -> ExitStatus | None:
    if state == KeptState.RUNNING:
        return None
    return ExitStatus(code=value) if state == KeptState.EXITED else ExitStatus(signal=value)


def decode_error(frame: Frame, *, program: str = "", cwd: str | None = None, user: str | None = None) -> AgentError:
    """The error to raise for an ERROR frame; ExecRefused, with the name of what was at fault, if a program could not
    start."""
    code, length = _unpack(_ERROR, frame, exact=False)
    text = frame.payload[_ERROR.size :]
    if length != len(text):
        return AgentError("agent: an error that makes no sense")
    reason = _plain(text)
    if code == ErrorCode.NOT_FOUND:
        return ExecRefused(f"{program}: {reason}", 127, hint="is it in the image, and on its PATH?")
    subjects: dict[int, str] = {
        ErrorCode.NOT_EXECUTABLE: program,
        ErrorCode.WORKDIR: f"working directory {cwd or ''}",
        ErrorCode.USER: f"user {user or ''}",
    }
    if code in subjects:
        return ExecRefused(f"{subjects[code]}: {reason}", 126)
    return AgentError(f"agent: {reason}")


def _plain(text: bytes) -> str:
    """The guest's words as they may be shown: nothing that a terminal would obey, and not too many."""
    words = text[:MAX_REASON].decode(errors="replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)


def _unpack(layout: struct.Struct, frame: Frame, *, exact: bool = True) -> tuple[int, ...]:
    size = len(frame.payload)
    if size < layout.size or (exact and size != layout.size):
        raise AgentError(f"agent: {frame.kind.name} of {size} bytes, not {layout.size}")
    return layout.unpack_from(frame.payload)
