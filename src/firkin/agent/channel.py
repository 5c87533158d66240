"""One socket to the agent that many threads share: whoever waits reads for all.

There is no thread of our own. Of the threads that wait one is at the socket (it leads); what it receives for others
wakes them, and when it has what it wanted another takes its place. So a single thread pays for no switch, and a
process that forks leaves no thread behind.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator

from firkin.agent.frames import Frame
from firkin.agent.messages import decode_error
from firkin.agent.mux import Mux, Stream
from firkin.agent.outputs import Output
from firkin.errors import AgentError

RECEIVE_BYTES = 256 * 1024
MAX_OUTGOING = 256 * 1024  # bytes that wait for the socket before writers wait for them
ENDED_HINT = "did the machine end, or was it rewound? firkin ls shows its state"
DRAIN_READS = 64  # of an idle connection: what came since nobody looked


class Channel:
    """Sends and receives for a `Mux`. Safe to use from several threads; `post` also from signal handlers."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._mux = Mux()
        self._lock = threading.RLock()
        self._busy = False  # the lock's holder is at work; a signal handler of the same thread may come between
        self._leading = False
        self._closing = False
        self._followers: list[tuple[Stream, threading.Condition]] = []
        self._posted: deque[bytes] = deque()
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._release = weakref.finalize(self, _close_both, sock, self._waker)

    @property
    def running(self) -> int:
        """Streams that have not ended."""
        return self._mux.running

    @property
    def broken(self) -> bool:
        """Whether the connection is of no use any more."""
        return self._mux.error is not None

    def close(self, why: AgentError | None = None) -> None:
        """Hang up; what waits gets an error."""
        with self._held():
            self._closing = True
            self._fail(why or AgentError("the connection to the guest's agent was closed"))
            if not self._leading:
                self._release()
            elif self._release.alive:
                os.eventfd_write(self._waker, 1)  # the thread at the socket gives it back

    def open(self, encode: Callable[[int], bytes], fault: Callable[[Frame], AgentError] = decode_error) -> Stream:
        """Send a request; see `Mux.open`."""
        with self._held():
            return self._mux.open(encode, fault)

    def read(self, stream: Stream) -> Output | None:
        """The next piece that has arrived; None when there is none."""
        with self._held():
            return self._mux.read(stream)

    def write(self, stream: Stream, data: memoryview) -> int:
        """Send what may be sent now; answers how many bytes."""
        with self._held():
            return 0 if len(self._mux.outgoing) > MAX_OUTGOING else self._mux.write(stream, data)

    def close_stdin(self, stream: Stream) -> None:
        """Tell the end of stdin."""
        with self._held():
            self._mux.close_stdin(stream)

    def abandon(self, stream: Stream) -> None:
        """Nobody reads this stream any more."""
        with self._held():
            self._mux.abandon(stream)

    def can_write(self, stream: Stream) -> bool:
        """Whether `write` would send something."""
        return stream.takes_input and len(self._mux.outgoing) <= MAX_OUTGOING

    def detach(self, stream: Stream) -> None:
        """Leave a kept program to itself; its stream ends with the agent's answer."""
        with self._held():
            self._mux.detach(stream)

    def signal(self, stream: Stream, number: int) -> None:
        """Send a signal to the program's process group."""
        self._post(self._mux.signal(stream, number))

    def resize(self, stream: Stream, rows: int, columns: int) -> None:
        """Tell the program's terminal its new size."""
        self._post(self._mux.resize(stream, rows, columns))

    def nudge(self) -> None:
        """Have every thread that waits look again at what it waits for."""
        with self._held():
            for _, condition in self._followers:
                condition.notify()
            if self._leading:
                os.eventfd_write(self._waker, 1)

    def check_idle(self) -> bool:
        """Look, without waiting, whether an idle connection still stands."""
        with self._held():
            for _ in range(DRAIN_READS):
                if self._leading or self.broken or not self._receive():
                    break
        return not self.broken

    def wait(self, stream: Stream, done: Callable[[], bool], deadline: float | None) -> bool:
        """Serve the connection until `done`; False when `deadline`, by time.monotonic(), passed first."""
        with self._held():
            try:
                while not done():
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    if self._leading:
                        self._follow(stream, left)
                    else:
                        self._lead(left)
            finally:
                self._hand_over()
        return True

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the lock; what is to be sent is on its way afterwards."""
        with self._lock:
            self._busy = True
            try:
                yield
            finally:
                self._transmit()
                self._busy = False
        if self._posted:  # by a signal handler, in the last instant
            self._post(b"")

    def _post(self, frame: bytes) -> None:
        """Send a frame, now or, when this interrupted ourselves, as soon as we let go."""
        with self._lock:
            if frame:
                self._posted.append(frame)
            if self._busy:
                return
            with self._held():
                return

    def _transmit(self) -> None:
        """Send what the socket takes; the thread that leads sends the rest."""
        outgoing = self._mux.outgoing
        while self._posted:
            outgoing += self._posted.popleft()
        if not outgoing or self.broken:
            return
        try:
            sent = self._sock.send(outgoing)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            sent = len(outgoing)  # it has gone; what it said before is still to be read, and after that its end
        except OSError as error:
            self._fail(AgentError(f"the guest's agent does not take data: {error.strerror}"))
            return
        del outgoing[:sent]
        if outgoing and self._leading:
            os.eventfd_write(self._waker, 1)

    def _lead(self, left: float | None) -> None:
        """Wait at the socket, for everybody."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN | (select.POLLOUT if self._mux.outgoing else 0))
        poller.register(self._waker, select.POLLIN)
        self._leading, self._busy = True, False
        self._lock.release()
        try:
            ready = dict(poller.poll(None if left is None else int(left * 1000) + 1))
        finally:
            self._lock.acquire()
            self._leading, self._busy = False, True
        if self._waker in ready:
            os.eventfd_read(self._waker)
        if self._closing:
            self._release()
        elif ready.get(self._sock.fileno(), 0) & ~select.POLLOUT:
            self._receive()
        self._transmit()

    def _receive(self) -> bool:
        """Take in what is there; False when there is nothing."""
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(AgentError(f"the connection to the guest's agent broke: {error.strerror}", hint=ENDED_HINT))
            return False
        if not data:
            self._fail(AgentError("the guest's agent hung up", hint=ENDED_HINT))
            return False
        self._wake(self._mux.receive(data))
        return True

    def _follow(self, stream: Stream, left: float | None) -> None:
        """Wait until the leading thread has something for us, or leaves."""
        condition = threading.Condition(self._lock)
        entry = (stream, condition)
        self._followers.append(entry)
        self._busy = False
        try:
            condition.wait(left)
        finally:
            self._busy = True
            self._followers.remove(entry)

    def _wake(self, touched: list[Stream]) -> None:
        for stream, condition in self._followers:
            if stream in touched:
                condition.notify()

    def _hand_over(self) -> None:
        """We leave: somebody else is to lead."""
        if self._followers and not self._leading:
            self._followers[0][1].notify()

    def _fail(self, error: AgentError) -> None:
        self._wake(self._mux.fail(error))


def _close_both(sock: socket.socket, waker: int) -> None:
    sock.close()
    os.close(waker)
