"""What the host asks of the agent, as frames. docs/agent-protocol.md describes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from firkin.agent.frames import EXEC_KEPT, EXEC_STDIN, EXEC_TTY, Frame, Kind
from firkin.errors import AgentError

_EXEC = struct.Struct("<HHI")
_DIAL = struct.Struct("<IH")
_WINSIZE = struct.Struct("<HH")
_TWO_U32 = struct.Struct("<II")
_U32 = struct.Struct("<I")


def encode_exec(
    argv: Sequence[str | bytes],
    *,
    env: Sequence[str | bytes] = (),
    cwd: str | None = None,
    user: str | None = None,
    tty: tuple[int, int] | None = None,
    stdin: bool = False,
    kept: bool = False,
    window: int = 0,
    stream: int = 1,
) -> bytes:
    """EXEC as a frame; `tty` is (rows, columns), `window` the bytes of output that we take before we say more.
    A `kept` program outlives the connection.

    Raises:
        AgentError: an empty argv, a NUL byte in a string, or more than a frame holds.
    """
    if not argv:
        raise AgentError("exec: no program given")
    rows, columns = tty or (0, 0)
    lists = (argv, env, [cwd] if cwd else [], [user] if user else [])
    payload = _EXEC.pack(_u16(rows), _u16(columns), window) + b"".join(_strings(part) for part in lists)
    flags = (EXEC_TTY if tty else 0) | (EXEC_STDIN if stdin or tty else 0) | (EXEC_KEPT if kept else 0)
    return Frame(Kind.EXEC, payload, stream, flags).encode()


def encode_task(
    words: Sequence[str | bytes], *, user: str | None = None, stdin: bool = False, window: int = 0, stream: int = 1
) -> bytes:
    """TASK as a frame: one of the agent's own functions, in a child that is `user` (None: root).

    Raises:
        AgentError: as `encode_exec`.
    """
    payload = _U32.pack(window) + _strings(words) + _strings([user] if user else [])
    return Frame(Kind.TASK, payload, stream, EXEC_STDIN if stdin else 0).encode()


def encode_dial(port: int, *, window: int, stream: int) -> bytes:
    """DIAL as a frame: a connection to a TCP port on the guest's own loopback."""
    return Frame(Kind.DIAL, _DIAL.pack(window, _u16(port)), stream).encode()


def encode_attach(pid: int, *, window: int, stream: int) -> bytes:
    """ATTACH as a frame: take over a kept program."""
    return Frame(Kind.ATTACH, _TWO_U32.pack(window, pid), stream).encode()


def encode_window(credit: int, stream: int) -> bytes:
    """WINDOW as a frame: so many more bytes of output may come."""
    return Frame(Kind.WINDOW, _U32.pack(credit), stream).encode()


def encode_winsize(rows: int, columns: int, stream: int) -> bytes:
    """WINSIZE as a frame."""
    return Frame(Kind.WINSIZE, _WINSIZE.pack(_u16(rows), _u16(columns)), stream).encode()


def encode_signal(number: int, stream: int) -> bytes:
    """SIGNAL as a frame, for the program's whole process group."""
    return Frame(Kind.SIGNAL, _U32.pack(number), stream).encode()


def _strings(parts: Sequence[str | bytes]) -> bytes:
    encoded = [part.encode(errors="surrogateescape") if isinstance(part, str) else part for part in parts]
    if any(b"\0" in part for part in encoded):
        raise AgentError("exec: a NUL byte in an argument, variable, folder or user")
    blob = b"".join(part + b"\0" for part in encoded)
    return _U32.pack(len(blob)) + blob


def _u16(value: int) -> int:
    return min(max(value, 0), 0xFFFF)
