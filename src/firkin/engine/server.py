"""The API's unix socket: at most ten connections, requests answered one after the other."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from firkin.engine import http
from firkin.engine.loop import READ, WRITE, Loop

MAX_CONNECTIONS = 10

Answer = Callable[[http.Request], http.Response]


class ApiServer:
    """Listens from the moment it is made.

    Raises:
        OSError: the path exists already, or cannot be bound. A stale socket is never removed.
    """

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self._connections: set[_Connection] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(path)
            self._listener.listen(128)
        except OSError:
            self._listener.close()
            raise

    def serve(self, answer: Answer, payload_limit: int) -> None:
        """Begin to accept; clients that came earlier have been waiting in the backlog."""
        self._answer = answer
        self._payload_limit = payload_limit
        self._loop.watch(self._listener.fileno(), READ, self._accept)

    def close(self) -> None:
        """Give everybody what is left to send, and hang up. The socket file stays, as upstream."""
        for connection in list(self._connections):
            connection.finish()
        self._loop.forget(self._listener.fileno())
        self._listener.close()

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # gone again before we came
        if self._is_full():
            with client, contextlib.suppress(OSError):
                client.sendall(http.SERVER_FULL)
            return
        client.setblocking(False)
        parser = http.Parser(self._payload_limit)
        self._connections.add(_Connection(self._loop, client, parser, self._answer, self._connections.discard))

    def _is_full(self) -> bool:
        if len(self._connections) < MAX_CONNECTIONS:
            return False
        # poll(2) tells of this client first, also where others hung up before it came.
        for connection in [each for each in self._connections if each.is_gone()]:
            connection.close()
        return len(self._connections) >= MAX_CONNECTIONS


class _Connection:
    """One client."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        parser: http.Parser,
        answer: Answer,
        on_close: Callable[[_Connection], None],
    ) -> None:
        self._loop = loop
        self._client = client
        self._parser = parser
        self._answer = answer
        self._on_close = on_close
        self._outgoing = bytearray()
        loop.watch(client.fileno(), READ, self._handle)

    def is_gone(self) -> bool:
        """Whether the client has hung up and nothing is left to do for it."""
        try:
            return not self._outgoing and not self._client.recv(1, socket.MSG_PEEK)
        except OSError as error:
            return not isinstance(error, BlockingIOError)

    def finish(self) -> None:
        """Send what can be sent without waiting, then close."""
        if self._outgoing:
            self._flush()
        self.close()

    def close(self) -> None:
        if self._client.fileno() >= 0:
            self._loop.forget(self._client.fileno())
            self._client.close()
            self._on_close(self)

    def _handle(self, events: int) -> None:
        if events & WRITE:
            self._flush()
            return
        try:
            # No more than the parser wants: what a client may have in flight, and we answer at once, stays small.
            data = self._client.recv(self._parser.room)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # it is gone
        if data:
            self._take(data)
        else:
            self.close()

    def _take(self, data: bytes) -> None:
        try:
            for item in self._parser.feed(data):
                self._outgoing += self._reply(item).encode()
        except http.BadRequest as refused:
            self._outgoing += http.transport_error(str(refused)).encode()
        if self._outgoing:
            self._flush()

    def _reply(self, item: http.Request | http.Continue) -> http.Response:
        return http.Response(100, version=item.version) if isinstance(item, http.Continue) else self._answer(item)

    def _flush(self) -> None:
        try:
            sent = self._client.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._outgoing[:sent]
        # Nothing more is read from a client that does not take its answers.
        self._loop.watch(self._client.fileno(), WRITE if self._outgoing else READ, self._handle)
