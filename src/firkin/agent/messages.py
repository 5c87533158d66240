"""What the payloads mean: values to bytes and back. The guest's bytes are hostile, so every length is checked."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from firkin.agent.frames import EXEC_STDIN, EXEC_TTY, VERSION, Frame, Kind
from firkin.errors import AgentError

HELLO_MAGIC = 0x4E494B46
MAX_HOSTNAME = 64

_HELLO = struct.Struct("<IHHIIIIII")
_TWO_U32 = struct.Struct("<II")
_ERROR = struct.Struct("<HI")
_EXEC = struct.Struct("<HHI")
_WINSIZE = struct.Struct("<HH")
_U32 = struct.Struct("<I")


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


class ExecRefused(AgentError):
    """The program did not start; `returncode` is what a shell would say (127: not found, 126: cannot run)."""

    def __init__(self, message: str, returncode: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode


def encode_exec(
    argv: Sequence[str | bytes],
    *,
    env: Sequence[str | bytes] = (),
    cwd: str | None = None,
    user: str | None = None,
    tty: tuple[int, int] | None = None,
    stdin: bool = False,
    window: int = 0,
    stream: int = 1,
) -> bytes:
    """EXEC as a frame; `tty` is (rows, columns), `window` the bytes of output that we take before we say more.

    Raises:
        AgentError: an empty argv, a NUL byte in a string, or more than a frame holds.
    """
    if not argv:
        raise AgentError("exec: no program given")
    rows, columns = tty or (0, 0)
    lists = (argv, env, [cwd] if cwd else [], [user] if user else [])
    payload = _EXEC.pack(_u16(rows), _u16(columns), window) + b"".join(_strings(part) for part in lists)
    flags = (EXEC_TTY if tty else 0) | (EXEC_STDIN if stdin or tty else 0)
    return Frame(Kind.EXEC, payload, stream, flags).encode()


def encode_window(credit: int, stream: int) -> bytes:
    """WINDOW as a frame: so many more bytes of output may come."""
    return Frame(Kind.WINDOW, _U32.pack(credit), stream).encode()


def encode_winsize(rows: int, columns: int, stream: int) -> bytes:
    """WINSIZE as a frame."""
    return Frame(Kind.WINSIZE, _WINSIZE.pack(_u16(rows), _u16(columns)), stream).encode()


def encode_signal(number: int, stream: int) -> bytes:
    """SIGNAL as a frame, for the program's whole process group."""
    return Frame(Kind.SIGNAL, _U32.pack(number), stream).encode()


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


def decode_error(frame: Frame, *, program: str = "", cwd: str | None = None, user: str | None = None) -> AgentError:
    """The error to raise for an ERROR frame; ExecRefused, with the name of what was at fault, if a program could not
    start."""
    code, length = _unpack(_ERROR, frame, exact=False)
    text = frame.payload[_ERROR.size :]
    if length != len(text):
        return AgentError("agent: an error that makes no sense")
    reason = text.decode(errors="replace")
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


def _unpack(layout: struct.Struct, frame: Frame, *, exact: bool = True) -> tuple[int, ...]:
    size = len(frame.payload)
    if size < layout.size or (exact and size != layout.size):
        raise AgentError(f"agent: {frame.kind.name} of {size} bytes, not {layout.size}")
    return layout.unpack_from(frame.payload)


def _strings(parts: Sequence[str | bytes]) -> bytes:
    encoded = [part.encode(errors="surrogateescape") if isinstance(part, str) else part for part in parts]
    if any(b"\0" in part for part in encoded):
        raise AgentError("exec: a NUL byte in an argument, variable, folder or user")
    blob = b"".join(part + b"\0" for part in encoded)
    return _U32.pack(len(blob)) + blob


def _u16(value: int) -> int:
    return min(max(value, 0), 0xFFFF)
