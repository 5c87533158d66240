"""The host's unix sockets: the one that host programs connect to, and those that the guest's connections go to."""

from __future__ import annotations

import errno
import os
import select
import socket
from contextlib import suppress

from firkin.engine.vhost.reactor import EDGE, READ, WRITE, Handler, Reactor

MAX_PATH_SIZE = 107
BACKLOG = 128
DISCARD_SIZE = 256 * 1024


class HostStream:
    """A connected unix socket, watched by the reactor from `watch` until `close`."""

    __slots__ = ("_reactor", "_socket")

    def __init__(self, reactor: Reactor, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._reactor = reactor
        self._socket = connected

    def watch(self, handler: Handler) -> None:
        """Call `handler` at each change; what is true already counts as one."""
        self._reactor.remove(self._socket.fileno())
        self._reactor.add(self._socket.fileno(), READ | EDGE, handler)

    def peek(self, size: int) -> bytes:
        return self._socket.recv(size, socket.MSG_PEEK)

    def receive(self, size: int) -> bytes:
        return self._socket.recv(size)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        return self._socket.send(data, socket.MSG_NOSIGNAL)

    def want_writable(self, wanted: bool) -> None:
        self._reactor.change(self._socket.fileno(), READ | EDGE | (WRITE if wanted else 0))

    def finish_writing(self) -> None:
        self._shutdown(socket.SHUT_WR)

    def stop_reading(self) -> None:
        self._shutdown(socket.SHUT_RD)

    def _shutdown(self, how: int) -> None:
        with suppress(OSError):  # the other side was faster
            self._socket.shutdown(how)

    def gone(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """End in peace: a unix socket closed with unread bytes gives the other side an error where its input ends."""
        self._reactor.remove(self._socket.fileno())
        self._shutdown(socket.SHUT_RDWR)  # nothing comes in after this, so the rest is bounded
        with suppress(OSError):
            while self._socket.recv(DISCARD_SIZE):
                pass
        self._socket.close()


def bind(path: str) -> socket.socket:
    """Create the socket file that host programs connect to.

    Raises:
        OSError: EADDRINUSE when the file exists; ENAMETOOLONG above 107 bytes; EINVAL for no path; as bind(2) else.
    """
    raw = os.fsencode(path)
    if not raw or b"\0" in raw:
        raise OSError(errno.EINVAL, "not a socket path", path)
    if len(raw) > MAX_PATH_SIZE:
        raise OSError(errno.ENAMETOOLONG, "path must be shorter than SUN_LEN", path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(raw)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def dial(path: str) -> socket.socket | None:
    """Connect to a host program's socket; None when its queue is full just now.

    Raises:
        OSError: nobody listens there, or the path is too long for a socket.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        connected.connect(path)
    except BlockingIOError:
        connected.close()
        return None
    except OSError:
        connected.close()
        raise
    return connected
