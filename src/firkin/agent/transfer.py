"""Bytes into the agent's tasks and out of them, with what went wrong as one error.

A task that moves nothing for a while is given up: a frozen guest must not hold its caller for ever.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Protocol

from firkin.agent.process import Process
from firkin.errors import AgentError, GuestError, GuestFileError

STALL_S = 30.0
MAX_SAID = 1 << 16  # bytes of a task's complaints that are kept
MAX_LINE = 1000

OnBytes = Callable[[int], object]


class StartTask(Protocol):
    """Starts one of the agent's own functions; a connection has it, and a machine."""

    def __call__(self, *words: str | bytes, user: str | None = None, stdin: bool = False) -> Process: ...


class Transfer:
    """One task about `path`, its bytes and what it said. As a context manager it is killed at the end of its scope."""

    def __init__(
        self, process: Process, path: str, *, on_bytes: OnBytes | None = None, stall_s: float = STALL_S
    ) -> None:
        self._process = process
        self._path = path
        self._on_bytes = on_bytes
        self._stall_s = stall_s
        self._said = bytearray()

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.close()

    @property
    def notes(self) -> list[str]:
        """What the task said so far, a line each, fit for a terminal."""
        return [_printable(line) for line in bytes(self._said).decode(errors="replace").splitlines()]

    def receive(self) -> Iterator[bytes]:
        """What the task writes, until it has ended well.

        Raises:
            GuestFileError: it failed, or nothing came for a while.
            AgentError: the connection broke.
        """
        while (piece := self._next()) is not None:
            self._count(len(piece))
            yield piece

    def send(self, pieces: Iterator[bytes]) -> None:
        """Give it all it is to read, and wait until it has ended well.

        Raises:
            GuestFileError, AgentError: as `receive`.
        """
        for piece in pieces:
            self._write(piece)
            if self._process.status is not None:
                break
            self._count(len(piece))
        self._process.close_stdin()
        while self._next() is not None:
            pass

    def _write(self, piece: bytes) -> None:
        try:
            self._process.write(piece, self._stall_s)
        except TimeoutError as error:
            raise self._stalled() from error

    def _next(self) -> bytes | None:
        while True:
            try:
                output = self._process.read(self._stall_s)
            except TimeoutError as error:
                raise self._stalled() from error
            if output is None:
                self._check()
                return None
            if output.fd == 1:
                return output.data
            self._said += output.data[: MAX_SAID - len(self._said)]

    def _check(self) -> None:
        status = self._process.status
        if status is None or status.signal is not None:
            raise task_killed(self._path)
        if status.returncode != 0:
            raise task_error(self._path, status.returncode, bytes(self._said))

    def _stalled(self) -> GuestError:
        reason = f"nothing moved for {self._stall_s:g} s"
        return GuestFileError(self._path, errno.ETIMEDOUT, reason, hint="is the machine paused, frozen or overloaded?")

    def _count(self, size: int) -> None:
        if self._on_bytes is not None:
            self._on_bytes(size)


def task_error(path: str, code: int, said: bytes) -> GuestFileError:
    """The error for a task that ended with an errno and a line `PATH: REASON`."""
    lines = said.decode(errors="replace").splitlines()
    subject, colon, reason = (lines[0] if lines else "").rpartition(": ")
    subject, more = subject if colon else path, len(lines) - 1
    if more > 0:
        reason += f" (and {more} more)"
    return GuestFileError(_printable(subject), code, _printable(reason))


def task_killed(path: str) -> AgentError:
    """The error for a task that did not end by itself."""
    return AgentError(f"{path}: the guest killed the agent's task", hint="is the guest out of memory?")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_LINE])
