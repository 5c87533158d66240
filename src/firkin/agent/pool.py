"""The connections that one machine's handle keeps open: one, until more programs run at once than it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from firkin.agent.client import AgentConnection
from firkin.agent.mux import MAX_STREAMS
from firkin.errors import AgentError


class AgentPool:
    """Hands out connections with room for one more program. Safe to use from several threads.

    `check` raises where a request would be in vain; `first` is a connection that is there already.
    """

    def __init__(
        self,
        connect: Callable[[], AgentConnection],
        check: Callable[[], None],
        first: AgentConnection | None = None,
    ) -> None:
        self._connect = connect
        self._check = check
        self._lock = threading.Lock()
        self._reserved: dict[AgentConnection, int] = {} if first is None else {first: 0}

    @contextmanager
    def room(self) -> Iterator[AgentConnection]:
        """A connection on which, in this scope, one program can be started.

        Raises:
            AgentError: the agent does not answer.
        """
        self._check()
        connection = self._reserve()
        try:
            yield connection
        finally:
            with self._lock:
                if connection in self._reserved:
                    self._reserved[connection] -= 1

    def add(self, connection: AgentConnection) -> None:
        """Take over one that somebody else made."""
        with self._lock:
            self._reserved[connection] = 0

    def close(self, why: AgentError | None = None) -> None:
        """Hang up. What runs is killed, unless it is kept; who waits is told why. The pool may be used again."""
        with self._lock:
            connections, self._reserved = self._reserved, {}
        for connection in connections:
            connection.close(why)

    def _reserve(self) -> AgentConnection:
        with self._lock:
            connection = self._find() or self._connect()
            self._reserved[connection] = self._reserved.get(connection, 0) + 1
            return connection

    def _find(self) -> AgentConnection | None:
        for connection, reserved in list(self._reserved.items()):
            if not connection.check_idle():
                connection.close()
                del self._reserved[connection]
            elif connection.running + reserved < MAX_STREAMS:
                return connection
        return None
