"""One program in the guest, from EXEC to EXIT: streams in both directions, credit, resizing, signals, a deadline."""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from firkin.agent.frames import STDIN_EOF, Frame, FrameReader, Kind
from firkin.agent.messages import (
    ExitStatus,
    decode_error,
    decode_exit,
    decode_started,
    decode_window,
)
from firkin.agent.requests import encode_window
from firkin.agent.stdin import Stdin
from firkin.errors import AgentError

OUTPUT_WINDOW = 262144  # bytes of output that may be under way
RECEIVE_BYTES = 65536 + 12

Sink = Callable[[bytes], object]


class DeadlinePassed(Exception):
    """The program runs longer than it may."""


@dataclass(slots=True)
class Session:
    """The state of one running program. `pending` holds frames that other threads or signal handlers want sent."""

    sock: socket.socket
    reader: FrameReader
    stream: int
    stdin: Stdin
    sinks: dict[Kind, Sink | None]
    pending: deque[bytes]
    waker: int
    fault: Callable[[Frame], AgentError] = decode_error
    deadline: float | None = None
    pid: int | None = None
    status: ExitStatus | None = None
    _credit: int = OUTPUT_WINDOW
    _consumed: int = 0
    _poller: select.poll = field(default_factory=select.poll)
    _polled_stdin: int | None = None

    def run(self) -> ExitStatus:
        """Serve the program until its exit.

        Raises:
            ExecRefused: it did not start.
            AgentError: the agent went away or broke the protocol.
            DeadlinePassed: it runs longer than it may.
        """
        self._poller.register(self.sock, select.POLLIN)
        self._poller.register(self.waker, select.POLLIN)
        while self.status is None:
            self._send_pending()
            self._watch_stdin()
            self._serve(self._poller.poll(self._wait_ms()))
        return self.status

    def _wait_ms(self) -> int | None:
        if self.pid is not None and self.stdin.at_hand:
            return 0
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlinePassed
        return int(left * 1000) + 1

    def _watch_stdin(self) -> None:
        wanted = self.stdin.fd_to_poll if self.pid is not None else None
        if wanted == self._polled_stdin:
            return
        if self._polled_stdin is not None:
            self._poller.unregister(self._polled_stdin)
        if wanted is not None:
            self._poller.register(wanted, select.POLLIN)
        self._polled_stdin = wanted

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        fds = {fd for fd, _ in ready}
        if self.waker in fds:
            os.eventfd_read(self.waker)
        if self.sock.fileno() in fds:
            for frame in self._receive():
                self._take(frame)
        # The program may have ended by the frames above; then nobody wants the rest of its stdin.
        if self.status is None and self.pid is not None and (self.stdin.at_hand or self._polled_stdin in fds):
            self._send_stdin()

    def _receive(self) -> Iterator[Frame]:
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except OSError as error:
            raise AgentError(f"the connection to the guest's agent broke: {error}") from error
        if not data:
            raise AgentError(
                "the guest's agent hung up while a program ran", hint="did the machine end? firkin ls shows its state"
            )
        return self.reader.feed(data)

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.ERROR and frame.stream in (0, self.stream):
            raise self.fault(frame)
        if frame.stream != self.stream:
            raise AgentError(f"agent: {frame.kind.name} for stream {frame.stream}, which does not run")
        if frame.kind in self.sinks:
            self._take_output(frame)
        elif frame.kind == Kind.STARTED:
            self.pid, self.stdin.credit = decode_started(frame)
        elif frame.kind == Kind.WINDOW:
            self.stdin.credit += decode_window(frame)
        elif frame.kind == Kind.EXIT:
            self.status = decode_exit(frame)
        else:
            raise AgentError(f"agent: {frame.kind.name} while a program runs")

    def _take_output(self, frame: Frame) -> None:
        size = len(frame.payload)
        self._credit -= size
        if self._credit < 0:
            raise AgentError("agent: more output than was asked for")
        sink = self.sinks[frame.kind]
        if sink is not None and size:
            sink(frame.payload)
        self._consumed += size
        if self._consumed >= OUTPUT_WINDOW // 2:
            self._send(encode_window(self._consumed, self.stream))
            self._credit += self._consumed
            self._consumed = 0

    def _send_stdin(self) -> None:
        try:
            piece = self.stdin.take()
        except BlockingIOError:
            return
        flags = STDIN_EOF if self.stdin.ended else 0
        self._send(Frame(Kind.STDIN, piece, self.stream, flags).encode())

    def _send_pending(self) -> None:
        while self.pending:
            self._send(self.pending.popleft())

    def _send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise AgentError(f"the guest's agent does not take data: {error}") from error
