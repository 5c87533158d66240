"""One poll(2) over everything that the engine waits for. Handlers run one after the other, on one thread.

`select.poll` itself rather than `selectors`: it also takes regular files, which epoll refuses, and tells a hang-up from
readable data, which `selectors` does not.
"""

from __future__ import annotations

import select
from collections.abc import Callable

READ = select.POLLIN
WRITE = select.POLLOUT
GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL

Handler = Callable[[int], None]


class Loop:
    """File descriptors and who wants to hear of them."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Handler] = {}
        self._exit_code: int | None = None

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call `handler` with the events that came. Watching again replaces events and handler.

        A hang-up is reported whatever `events` says.
        """
        self._poll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stop watching; to be called before the descriptor is closed. Forgetting twice is fine."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def stop(self, exit_code: int) -> None:
        """Leave `run` once the current handlers are done. The first caller's code counts."""
        if self._exit_code is None:
            self._exit_code = exit_code

    def run(self) -> int:
        """Serve until somebody stops it; the exit code."""
        while self._exit_code is None:
            for fd, events in self._poll.poll():
                # A handler that ran just now may have forgotten this descriptor.
                if handler := self._handlers.get(fd):
                    handler(events)
        return self._exit_code
