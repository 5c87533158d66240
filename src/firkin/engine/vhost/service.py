"""The thread behind one QEMU: a single epoll loop for its trapped ioctls, doorbells and what its devices wait for."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from firkin.engine.vhost import seccomp
from firkin.engine.vhost.memory import ProcessMemory
from firkin.engine.vhost.reactor import READ, Reactor
from firkin.engine.vhost.vring import NO_FD


class Surroundings(NamedTuple):
    """What a backend is given: the loop, its own view of QEMU's memory and eventfds, and a way in for other threads."""

    reactor: Reactor
    memory: ProcessMemory
    fetch_eventfd: Callable[[int], int]
    soon: Callable[[Callable[[], None]], None]


class Backend(Protocol):
    """A device's working half. All of it runs in the service's thread."""

    def answer(self, request: int, argument: int) -> int:
        """Carry out an ioctl of QEMU's; 0, or the errno to fail it with."""

    def run_once(self) -> bool:
        """Serve the rings for a while. True when there is more to do without waiting for anyone."""

    def patience_s(self) -> float | None:
        """How long to wait for events: until the next thing that only time brings."""

    def close(self) -> None: ...


class Device(Protocol):
    """A device's resting half: what the engine holds before QEMU exists and keeps while it runs."""

    @property
    def trapped_fds(self) -> tuple[int, ...]:
        """Descriptors that QEMU inherits under the same numbers, and whose ioctls are answered here."""

    def open(self, surroundings: Surroundings) -> Backend:
        """In the service's thread, at QEMU's first trapped call."""


class Service:
    """Serves one QEMU process until it ends or `stop` is called. All but `stop` and `soon` runs in its thread."""

    def __init__(self, devices: Sequence[Device], *, pid: int, notify_fd: int) -> None:
        """Takes over `notify_fd`.

        Raises:
            OSError: no such process.
        """
        self.fault: str | None = None
        self._devices = devices
        self._notify_fd = notify_fd
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._memory_fd = NO_FD
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._reactor = Reactor()
        self._backends: list[Backend] = []
        self._by_fd: dict[int, Backend] = {}
        self._soon: deque[Callable[[], None]] = deque()
        self._ended = False

    # --- from other threads

    def stop(self) -> None:
        """End soon."""
        self._ended = True
        os.eventfd_write(self._wake_fd, 1)

    def soon(self, action: Callable[[], None]) -> None:
        """Have `action` done in the service's thread."""
        self._soon.append(action)
        os.eventfd_write(self._wake_fd, 1)

    def close_wake(self) -> None:
        """After the thread has ended and nobody calls `stop` or `soon` any more."""
        os.close(self._wake_fd)

    # --- the thread

    def run(self) -> None:
        """The thread's whole life. If it fails, the listener closes and QEMU's calls fail instead of hanging."""
        try:
            self._reactor.add(self._wake_fd, READ, self._on_wake)
            self._reactor.add(self._notify_fd, READ, self._on_notification)
            while not self._ended:
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        more = False
        for backend in self._backends:
            more |= backend.run_once()
        self._reactor.run_once(0 if more else self._patience_s())

    def _patience_s(self) -> float | None:
        waits_s = [backend.patience_s() for backend in self._backends]
        return min((wait_s for wait_s in waits_s if wait_s is not None), default=None)

    def _on_wake(self, _: int) -> None:
        os.eventfd_read(self._wake_fd)
        while self._soon:
            self._soon.popleft()()

    def _close(self) -> None:
        for backend in self._backends:
            backend.close()
        self._reactor.close()
        for fd in (self._notify_fd, self._pidfd, self._memory_fd):
            if fd != NO_FD:
                os.close(fd)

    # --- QEMU's calls

    def _on_notification(self, events: int) -> None:
        if not events & READ:
            self._ended = True  # the last thread under the filter is gone
            return
        call = seccomp.receive(self._notify_fd)
        if call is None:
            return
        try:
            if self._memory_fd == NO_FD:
                self._open_memory(call)
        except OSError as reason:
            self.fault = f"cannot look into process {self._pid}: {reason}"
            seccomp.respond(self._notify_fd, call, reason.errno or errno.EPERM)
            return
        backend = self._by_fd.get(call.fd)
        error = errno.ENOTTY if backend is None else backend.answer(call.request, call.argument)
        seccomp.respond(self._notify_fd, call, error)

    def _open_memory(self, call: seccomp.Notification) -> None:
        """Open QEMU's memory at its first trapped call: before exec the process still had ours."""
        fd = os.open(f"/proc/{self._pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        if not seccomp.still_waits(self._notify_fd, call):
            os.close(fd)
            raise ProcessLookupError(errno.ESRCH, "the process ended")
        self._memory_fd = fd
        fetch = partial(seccomp.fetch_eventfd, self._pidfd)
        for device in self._devices:
            backend = device.open(Surroundings(self._reactor, ProcessMemory(fd), fetch, self.soon))
            self._backends.append(backend)
            self._by_fd.update(dict.fromkeys(device.trapped_fds, backend))
