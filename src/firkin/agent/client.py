"""The host's side of a connection to the guest's agent: run programs, end the machine."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from firkin.agent.calls import Call, attach_call, dial_call, exec_call, task_call
from firkin.agent.channel import Channel
from firkin.agent.frames import Frame, FrameReader, Kind
from firkin.agent.messages import Hello, KeptProgram, decode_error, decode_kept
from firkin.agent.mux import OUTPUT_WINDOW, Stream
from firkin.agent.process import MAX_OUTPUT, REPLY_TIMEOUT_S, ExecResult, Process
from firkin.agent.reach import dial
from firkin.errors import AgentError, ExecTimeout
from firkin.spec import Environment

START_TIMEOUT_S = 30.0  # for the agent to start a program: a guest out of memory, or frozen, never does


class AgentConnection:
    """One connection. It runs up to 64 programs at once, for as many threads as want to.

    `hello` is what the agent said of itself. When the connection closes, what runs on it is killed, unless it is kept.

    Raises:
        AgentError: the agent does not answer, or speaks another version; from any method, that the connection broke.
    """

    def __init__(self, sock: socket.socket, *, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        try:
            self.hello = greet(sock, timeout_s)
            self._channel = Channel(sock)
        except BaseException:
            sock.close()
            raise

    def __enter__(self) -> AgentConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    @property
    def running(self) -> int:
        """How many programs run on it."""
        return self._channel.running

    def check_idle(self) -> bool:
        """Look, without waiting, whether the connection still stands."""
        return self._channel.check_idle()

    def start(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Environment = (),
        cwd: str | None = None,
        user: str | None = None,
        tty: tuple[int, int] | None = None,
        stdin: bool = False,
        kept: bool = False,
        window: int = OUTPUT_WINDOW,
        timeout_s: float = START_TIMEOUT_S,
    ) -> Process:
        """Start a program; never through a shell.

        `env` is added to the image's, `user` is NAME, UID, NAME:GROUP or UID:GID, `tty` the (rows, columns) of a
        terminal to run it on. Without `stdin` it reads /dev/null. A `kept` program outlives the connection; with a
        `window` of 0 bytes it says nothing to us, and all to whoever attaches.

        Raises:
            ExecRefused: it did not start; `returncode` is what a shell would say.
            AgentError: the guest did not answer within `timeout_s` seconds.
        """
        call = exec_call(argv, env=env, cwd=cwd, user=user, tty=tty, stdin=stdin, kept=kept, window=window)
        return self._started(call, timeout_s)

    def task(
        self,
        *words: str | bytes,
        user: str | None = None,
        stdin: bool = False,
        timeout_s: float = START_TIMEOUT_S,
    ) -> Process:
        """Start one of the agent's own functions (docs/agent-protocol.md lists them) as `user`, root if None.

        Raises:
            ExecRefused: there is no such user.
            AgentError: the guest did not answer within `timeout_s` seconds.
        """
        return self._started(task_call(words, user=user, stdin=stdin), timeout_s)

    def dial(self, port: int) -> Process:
        """Connect to a TCP port on the guest's own loopback: `write` goes there, what is read comes from there.

        Raises:
            AgentError: nobody listens there.
        """
        return self._started(dial_call(port))

    def attach(self, pid: int) -> Process:
        """Take over a kept program by its pid in the guest: what it said lately comes first.

        Raises:
            AgentError: there is none, or somebody else is attached.
        """
        return self._started(attach_call(pid))

    def kept(self) -> list[KeptProgram]:
        """The kept programs that nobody has seen end."""
        return decode_kept(self._request(Kind.KEPT, REPLY_TIMEOUT_S))

    def run(
        self,
        *argv: str | bytes,
        env: Environment = (),
        cwd: str | None = None,
        user: str | None = None,
        stdin: bytes | None = None,
        timeout_s: float | None = None,
        max_output: int = MAX_OUTPUT,
    ) -> ExecResult:
        """Run a program to its end and keep what it says, `max_output` bytes of each stream at most.

        Raises:
            ExecRefused: as `start`.
            ExecTimeout: it ran longer than `timeout_s` seconds; its process group was killed.
        """
        start = functools.partial(self.start, env=env, cwd=cwd, user=user)
        return run_to_end(start, argv, stdin, timeout_s, max_output)

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

    def _started(self, call: Call, timeout_s: float = START_TIMEOUT_S) -> Process:
        stream = self._channel.open(call.encode, call.fault)
        process = Process(self._channel, stream, call.argv, kept=call.kept)
        try:
            self._await(stream, lambda: stream.settled, timeout_s)
        except BaseException:
            process.close()
            raise
        return process

    def _request(self, kind: Kind, timeout_s: float) -> Frame:
        stream = self._channel.open(lambda number: Frame(kind, stream=number).encode())
        self._await(stream, lambda: stream.ended, timeout_s)
        if stream.reply is None:
            raise AgentError(f"agent: no OK in reply to {kind.name}")
        return stream.reply

    def _await(self, stream: Stream, done: Callable[[], bool], timeout_s: float) -> None:
        if not self._channel.wait(stream, done, time.monotonic() + timeout_s):
            raise silent(timeout_s)
        if stream.error is not None:
            raise stream.error


def silent(timeout_s: float) -> AgentError:
    """The error for an agent that does not answer in time."""
    return AgentError(
        f"the guest's agent does not answer within {timeout_s:g} s", hint="is the machine paused, or overloaded?"
    )


def run_to_end(
    start: Callable[..., Process],
    argv: Sequence[str | bytes],
    stdin: bytes | None,
    timeout_s: float | None,
    max_output: int,
) -> ExecResult:
    """Start a program by `start`, feed it, and collect what it says; the time limit holds for all of it."""
    began = time.monotonic()
    limit = START_TIMEOUT_S if timeout_s is None else min(timeout_s, START_TIMEOUT_S)
    with start(argv, stdin=stdin is not None, timeout_s=limit) as process:
        left = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - began))
        try:
            return process.result(stdin=stdin or b"", timeout_s=left, max_output=max_output)
        except ExecTimeout as error:
            raise ExecTimeout(f"{process.argv[0]}: still running after {timeout_s:g} s; killed") from error


def connect(uds_path: Path, timeout_s: float) -> AgentConnection:
    """Connect to the agent through the VMM's vsock socket; try again until `timeout_s` seconds have passed.

    Raises:
        AgentError: no agent answered in time.
    """
    sock, left = dial(uds_path, timeout_s)
    return AgentConnection(sock, timeout_s=left)


def greet(sock: socket.socket, timeout_s: float) -> Hello:
    """Say hello, and hear the agent's, within `timeout_s` seconds for both."""
    deadline, reader = time.monotonic() + timeout_s, FrameReader()
    try:
        sock.settimeout(timeout_s)
        sock.sendall(Hello().encode())
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            data = sock.recv(4096)
            if not data:
                raise AgentError("the guest's agent hung up")
            for frame in reader.feed(data):
                if frame.kind == Kind.ERROR:
                    raise decode_error(frame)
                return Hello.decode(frame)
    except OSError as error:
        raise AgentError(f"the guest's agent does not answer: {error}") from error
    raise AgentError("the guest's agent does not answer in time")
