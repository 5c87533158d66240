"""One epoll set and who is called for each descriptor in it."""

from __future__ import annotations

import select
from collections.abc import Callable

ENDED = select.EPOLLRDHUP  # the other side writes no more
READ = select.EPOLLIN | ENDED
WRITE = select.EPOLLOUT
EDGE = select.EPOLLET
GONE = select.EPOLLHUP | select.EPOLLERR

Handler = Callable[[int], None]


class Reactor:
    """Handlers get epoll's event bits. They may add and remove descriptors, their own included."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def add(self, fd: int, events: int, handler: Handler) -> None:
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget a descriptor, which must still be open; an unknown one is no error."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run_once(self, timeout_s: float | None) -> None:
        """Wait for events, forever if None, and call their handlers."""
        for fd, events in self._epoll.poll(timeout_s):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)

    def close(self) -> None:
        self._handlers.clear()
        self._epoll.close()
