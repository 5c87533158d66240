"""The host's side of a connection to the guest's agent: run programs, end the machine."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from firkin.agent.frames import Frame, FrameReader, Kind
from firkin.agent.hello import HelloListener
from firkin.agent.messages import (
    ExecRefused,
    ExitStatus,
    Hello,
    decode_error,
)
from firkin.agent.requests import encode_exec, encode_signal, encode_winsize
from firkin.agent.session import OUTPUT_WINDOW, DeadlinePassed, Session, Sink
from firkin.agent.stdin import Stdin
from firkin.errors import AgentError
from firkin.host.unix import connect_unix

__all__ = ["AgentConnection", "ExecRefused", "ExecResult", "ExitStatus", "HelloListener", "connect"]

AGENT_PORT = 1024
REPLY_TIMEOUT_S = 10.0
RETRY_S = 0.01
MAX_KEPT = 16 * 1024 * 1024
MAX_ANSWER = 32  # bytes of the VMM's answer to CONNECT


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a program left behind; `truncated` when it said more than was kept."""

    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class _Keeper:
    """Keeps the first `limit` bytes of an output."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.truncated = False
        self._limit = limit

    def __call__(self, piece: bytes) -> None:
        room = self._limit - len(self.data)
        self.data += piece[:room]
        self.truncated = self.truncated or len(piece) > room


class AgentConnection:
    """One connection. It runs one program at a time; open another for the next one beside it.

    `hello` is what the agent said of itself. After any error but ExecRefused the connection is closed, and what ran on
    it is killed. `resize` and `signal` may be called from other threads and from signal handlers.

    Raises:
        AgentError: the agent does not answer, or speaks another version.
    """

    def __init__(self, sock: socket.socket, *, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        self._sock = sock
        self._reader = FrameReader()
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pending: deque[bytes] = deque()
        self._last_stream = 0
        self._running: int | None = None
        try:
            self._sock.settimeout(timeout_s)
            self._send(Hello().encode())
            self.hello = Hello.decode(self._receive_one())
            self._sock.settimeout(REPLY_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> AgentConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; what still runs on this connection is killed."""
        self._sock.close()
        if self._waker >= 0:
            os.close(self._waker)
            self._waker = -1

    def exec(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Sequence[str] = (),
        cwd: str | None = None,
        user: str | None = None,
        tty: tuple[int, int] | None = None,
        stdin: bytes | int | None = None,
        timeout_s: float | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
    ) -> ExitStatus:
        """Run a program until its end; never through a shell.

        `env` holds NAME=VALUE beyond the image's, `tty` is (rows, columns) of a terminal to run it on, `stdin` bytes or
        a descriptor to read (None: /dev/null). Output goes to the callables as it comes; None drops it. What a
        callable raises ends the program and comes through.

        Raises:
            ExecRefused: it did not start.
            AgentError: the agent went away, or the program ran longer than `timeout_s` seconds.
        """
        source = Stdin(stdin)
        request = encode_exec(
            argv, env=env, cwd=cwd, user=user, tty=tty, stdin=source.wanted,
            window=OUTPUT_WINDOW, stream=self._last_stream + 1,
        )  # fmt: skip
        session = self._session(source, {Kind.STDOUT: on_stdout, Kind.STDERR: on_stderr}, timeout_s)
        session.fault = functools.partial(decode_error, program=os.fsdecode(argv[0]), cwd=cwd, user=user)
        try:
            self._send(request)
            return session.run()
        except ExecRefused:
            raise
        except DeadlinePassed as error:
            self.close()
            raise AgentError(f"{argv[0]!s}: still running after {timeout_s:g} s; killed") from error
        except BaseException:
            self.close()
            raise
        finally:
            self._running = None
            self._pending.clear()

    def run(
        self,
        *argv: str | bytes,
        env: Sequence[str] = (),
        cwd: str | None = None,
        user: str | None = None,
        stdin: bytes | None = None,
        timeout_s: float | None = None,
        max_kept: int = MAX_KEPT,
    ) -> ExecResult:
        """Run a program and keep what it says, `max_kept` bytes of each stream at most.

        Raises:
            ExecRefused, AgentError: as `exec`.
        """
        out, err = _Keeper(max_kept), _Keeper(max_kept)
        status = self.exec(
            argv, env=env, cwd=cwd, user=user, stdin=stdin, timeout_s=timeout_s, on_stdout=out, on_stderr=err
        )
        return ExecResult(status.returncode, bytes(out.data), bytes(err.data), out.truncated or err.truncated)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the running program's terminal its new size. Does nothing when none runs."""
        if (stream := self._running) is not None:
            self._queue(encode_winsize(rows, columns, stream))

    def signal(self, number: int) -> None:
        """Send a signal to the running program's process group. Does nothing when none runs."""
        if (stream := self._running) is not None:
            self._queue(encode_signal(number, stream))

    def sync(self, timeout_s: float = 60.0) -> None:
        """Have the guest write everything to its disks.

        Raises:
            AgentError: not done within `timeout_s` seconds.
        """
        self._request(Kind.SYNC, timeout_s)

    def poweroff(self) -> None:
        """Ask the guest to end. Returns when it has begun; the VMM's end tells that it has.

        Raises:
            AgentError: it refused or did not answer.
        """
        self._request(Kind.POWEROFF, REPLY_TIMEOUT_S)

    def reboot(self) -> None:
        """As `poweroff`, told as a restart."""
        self._request(Kind.REBOOT, REPLY_TIMEOUT_S)

    def _session(self, source: Stdin, sinks: dict[Kind, Sink | None], timeout_s: float | None) -> Session:
        if self._running is not None:
            raise AgentError("exec: this connection runs a program already", hint="open another connection")
        self._last_stream += 1
        self._running = self._last_stream
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        return Session(
            self._sock, self._reader, self._last_stream, source, sinks, self._pending, self._waker, deadline=deadline
        )

    def _queue(self, frame: bytes) -> None:
        self._pending.append(frame)
        with contextlib.suppress(OSError):  # closed in this moment: there is nobody to tell
            os.eventfd_write(self._waker, 1)

    def _request(self, kind: Kind, timeout_s: float) -> None:
        self._last_stream += 1
        self._sock.settimeout(timeout_s)
        try:
            self._send(Frame(kind, stream=self._last_stream).encode())
            reply = self._receive_one()
        except BaseException:
            self.close()
            raise
        self._sock.settimeout(REPLY_TIMEOUT_S)
        if reply.kind != Kind.OK or reply.stream != self._last_stream:
            self.close()
            raise AgentError(f"agent: {reply.kind.name} in reply to {kind.name}")

    def _send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise AgentError(f"the guest's agent does not take data: {error}") from error

    def _receive_one(self) -> Frame:
        deadline = time.monotonic() + (self._sock.gettimeout() or REPLY_TIMEOUT_S)
        while time.monotonic() < deadline:
            try:
                data = self._sock.recv(4096)
            except OSError as error:
                raise AgentError(f"the guest's agent does not answer: {error}") from error
            if not data:
                raise AgentError("the guest's agent hung up")
            for frame in self._reader.feed(data):
                if frame.kind == Kind.ERROR:
                    raise decode_error(frame)
                return frame
        raise AgentError("the guest's agent does not answer in time")


def connect(uds_path: Path, timeout_s: float, *, port: int = AGENT_PORT) -> AgentConnection:
    """Connect to the agent through the VMM's vsock socket; try again until `timeout_s` seconds have passed.

    Raises:
        AgentError: no agent answered in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = max(deadline - time.monotonic(), RETRY_S)
        try:
            sock = _dial(uds_path, port, left)
        except OSError as error:
            if time.monotonic() + RETRY_S >= deadline:
                raise AgentError(
                    f"{uds_path}: no agent answers: {error}", hint="has the guest booted? its console log says"
                ) from error
            time.sleep(RETRY_S)
        else:
            return AgentConnection(sock, timeout_s=left)


def _dial(uds_path: Path, port: int, timeout_s: float) -> socket.socket:
    sock = connect_unix(uds_path, timeout_s)
    try:
        _shake_hands(sock, port)
    except BaseException:
        sock.close()
        raise
    return sock


def _shake_hands(sock: socket.socket, port: int) -> None:
    """Reach a port in the guest, as Firecracker's hybrid vsock has it."""
    sock.sendall(f"CONNECT {port}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        byte = sock.recv(1)  # one at a time: what follows the line belongs to the agent
        if not byte or len(answer) > MAX_ANSWER:
            raise ConnectionRefusedError(f"nothing listens on the guest's port {port}")
        answer += byte
    if not answer.startswith(b"OK "):
        raise ConnectionRefusedError(f"{answer!r} in answer to CONNECT")
