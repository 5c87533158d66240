"""One poll(2) over everything that the engine waits for. Handlers run one after the other, on one thread.

`select.poll` itself rather than `selectors`: it also takes regular files, which epoll refuses, and tells a hang-up from
readable data, which `selectors` does not.
"""

from __future__ import annotations

import heapq
import select
import time
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
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._exit_code: int | None = None

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` once, `delay_s` seconds from now at the earliest."""
        self._timer_count += 1  # keeps equal times in order, and actions out of the comparison
        heapq.heappush(self._timers, (time.monotonic() + delay_s, self._timer_count, action))

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
            for fd, events in self._poll.poll(self._timeout_ms()):
                # A handler that ran just now may have forgotten this descriptor.
                if handler := self._handlers.get(fd):
                    handler(events)
            self._run_timers()
        return self._exit_code

    def _timeout_ms(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) * 1000 if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
