"""Copies a descriptor to a program's stdin, in a thread, until its end, the program's, or ours."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Protocol

from firkin.errors import AgentError

READ_BYTES = 65536


# Sees what is read: answers what to pass on, and whether to leave the program to itself after that.
Sieve = Callable[[bytes], tuple[bytes, bool]]


class Taker(Protocol):
    """What takes the bytes: a `Process`."""

    def put(self, data: bytes, cancelled: threading.Event) -> None: ...

    def close_stdin(self) -> None: ...

    def leave(self) -> None: ...


class Feeder:
    """One such copy. The descriptor stays its owner's; nothing is read from it after `stop` returned."""

    def __init__(self, taker: Taker, fd: int, sieve: Sieve = lambda data: (data, False)) -> None:
        self._taker = taker
        self._fd = fd
        self._sieve = sieve
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.cancelled = threading.Event()
        self._thread = threading.Thread(target=self._copy, name="firkin-stdin", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Ask the thread to end; whoever makes `put` wait must be woken too."""
        self.cancelled.set()
        if self._stop_fd >= 0:
            os.eventfd_write(self._stop_fd, 1)

    def join(self) -> None:
        """Wait for its end, after `cancel`."""
        self._thread.join()
        if self._stop_fd >= 0:
            os.close(self._stop_fd)
            self._stop_fd = -1

    def _copy(self) -> None:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._stop_fd, select.POLLIN)
        try:
            while self._fd in dict(poller.poll()) and not self.cancelled.is_set():
                if not self._pass_on(read(self._fd)):
                    return
        except AgentError:
            return  # the connection is broken: whoever reads the output is told

    def _pass_on(self, data: bytes | None) -> bool:
        """Whether to go on."""
        if data == b"":
            self._taker.close_stdin()
            return False
        passed, leaves = self._sieve(data or b"")
        self._taker.put(passed, self.cancelled)
        if leaves:
            self._taker.leave()
        return not leaves


def read(fd: int) -> bytes | None:
    """What is there: empty at the end, None if somebody else took it before us."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # a terminal that was closed: its end, as far as the guest is concerned
