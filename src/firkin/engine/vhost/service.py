"""The thread behind one QEMU: a single epoll loop for its ioctls, doorbells and what its devices wait for."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from firkin.engine.vhost import calls, descriptors
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
        """Descriptors that QEMU is given, and whose ioctls are answered here."""

    def open(self, surroundings: Surroundings) -> Backend:
        """In the service's thread, at QEMU's first trapped call."""


class Service:
    """Serves one QEMU process until it ends or `stop` is called. All but `stop` and `soon` runs in its thread."""

    def __init__(self, devices: Sequence[Device], numbers: Sequence[int], *, pid: int, calls: socket.socket) -> None:
        """Takes over `calls`. `numbers` are those of the devices' descriptors in QEMU, in order.

        Raises:
            OSError: no such process.
        """
        self.fault: str | None = None
        self._devices = devices
        self._numbers = numbers
        self._calls = calls
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
        """The thread's whole life. If it fails, the socket closes and QEMU's calls fail instead of hanging."""
        try:
            self._reactor.add(self._wake_fd, READ, self._on_wake)
            self._reactor.add(self._calls.fileno(), READ, self._on_call)
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
        self._calls.close()
        for fd in (self._pidfd, self._memory_fd):
            if fd != NO_FD:
                os.close(fd)

    # --- QEMU's calls

    def _on_call(self, _events: int) -> None:
        call = calls.receive(self._calls)
        if call is None:
            self._ended = True
            return
        try:
            if self._memory_fd == NO_FD:
                self._open_memory()
        except OSError as reason:
            self.fault = f"cannot look into process {self._pid}: {reason}"
            calls.respond(self._calls, reason.errno or errno.EPERM)
            return
        backend = self._by_fd.get(call.fd)
        calls.respond(self._calls, errno.ENOTTY if backend is None else backend.answer(call.request, call.argument))

    def _open_memory(self) -> None:
        """Open QEMU's memory at its first call: before exec the process still had ours."""
        fd = os.open(f"/proc/{self._pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        if select.select([self._pidfd], [], [], 0)[0]:  # ended, and the number may be another's
            os.close(fd)
            raise ProcessLookupError(errno.ESRCH, "the process ended")
        self._memory_fd = fd
        fetch = partial(descriptors.fetch_eventfd, self._pidfd)
        numbers = iter(self._numbers)
        for device in self._devices:
            backend = device.open(Surroundings(self._reactor, ProcessMemory(fd), fetch, self.soon))
            self._backends.append(backend)
            self._by_fd.update({next(numbers): backend for _ in device.trapped_fds})
