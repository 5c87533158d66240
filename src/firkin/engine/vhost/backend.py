"""What every served device has in common: doorbells watched while its rings exist, until the guest breaks them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from firkin.engine.vhost.control import VhostControl
from firkin.engine.vhost.memory import RingBroken
from firkin.engine.vhost.reactor import EDGE, READ, Reactor
from firkin.engine.vhost.vring import NO_FD


class RingBackend(ABC):
    """Lives in the service's thread. A kind of device says what it does in the methods below."""

    control: VhostControl

    def __init__(self, reactor: Reactor) -> None:
        self.fault: str | None = None
        self.reactor = reactor
        self.serving = False

    @abstractmethod
    def serve(self) -> bool:
        """Serve the rings for a while; True when there is more to do. Raises: RingBroken."""

    @abstractmethod
    def kicked(self, index: int) -> None:
        """The guest rang for a ring."""

    @abstractmethod
    def begin(self) -> None:
        """The rings exist, and are watched."""

    @abstractmethod
    def end(self) -> None:
        """One of them is gone; comes once for each that goes by itself."""

    @abstractmethod
    def broken(self) -> None:
        """They make no sense any more, and are left alone."""

    def answer(self, request: int, argument: int) -> int:
        return self.control.answer(request, argument)

    def run_once(self) -> bool:
        if not self.serving:
            return False
        try:
            return self.serve()
        except RingBroken as reason:
            self.disable(str(reason))
            return False

    def started(self) -> None:
        """Serve once every ring is there (control.Listener)."""
        if self.serving or any(vring.ring is None for vring in self.control.vrings):
            return
        self.fault = None
        self.serving = True
        for index in range(len(self.control.vrings)):
            self._watch(index)
        self.begin()

    def stopped(self) -> None:
        self._unwatch()
        self.end()

    def kick_changed(self, index: int, old_fd: int) -> None:
        """Drop the old descriptor while it is open: QEMU holds a copy, so closing ours would leave it in the set."""
        self.reactor.remove(old_fd)
        if self.serving:
            self._watch(index)

    def disable(self, reason: str) -> None:
        """The guest broke its rings: leave them alone until its driver starts the device again."""
        self.fault = reason
        self._unwatch()
        self.broken()

    def _watch(self, index: int) -> None:
        # Edge-triggered, so nobody has to read the counter: QEMU may take its doorbell back with it intact.
        if (fd := self.control.vrings[index].fds["kick"]) != NO_FD:
            self.reactor.add(fd, READ | EDGE, lambda _: self.kicked(index))
        self.kicked(index)

    def _unwatch(self) -> None:
        self.serving = False
        for vring in self.control.vrings:
            self.reactor.remove(vring.fds["kick"])
