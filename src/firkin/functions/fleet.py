"""Machines with workers in them: started when somebody needs one, then kept warm."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from firkin.errors import AgentError, UsageError


class Worker(Protocol):
    """What runs calls."""

    @property
    def alive(self) -> bool: ...


class Machine(Protocol):
    """What a worker lives in."""

    def remove(self, *, force: bool = False) -> None: ...


M = TypeVar("M", bound=Machine)
W = TypeVar("W", bound=Worker)


@dataclass(eq=False)
class _Berth(Generic[M]):
    """Room for one machine."""

    boot: Callable[[], M]
    machine: M | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def occupied(self) -> M:
        with self.lock:
            if self.machine is None:
                self.machine = self.boot()
            return self.machine

    def clear(self, former: M | None = None) -> None:
        """Remove the machine, if it is still that one."""
        with self.lock:
            machine = self.machine
            if machine is not None and former in (None, machine):
                self.machine = None
                machine.remove(force=True)


@dataclass(eq=False)
class _Seat(Generic[M, W]):
    """Room for one worker in a machine."""

    berth: _Berth[M]
    machine: M | None = None
    worker: W | None = None


class Fleet(Generic[M, W]):
    """`machines` with `seats` workers in each. One worker per call: the one used last comes first, since it is warm.
    Safe to use from several threads.
    """

    def __init__(self, boot: Callable[[], M], hire: Callable[[M], W], *, machines: int, seats: int) -> None:
        self._hire = hire
        self._berths = [_Berth(boot) for _ in range(machines)]
        self._free: queue.LifoQueue[_Seat[M, W]] = queue.LifoQueue()
        self.size = machines * seats
        # The first machine fills up before a second is booted.
        for berth in reversed(self._berths):
            for _ in range(seats):
                self._free.put(_Seat(berth))

    @contextmanager
    def worker(self) -> Iterator[W]:
        """A worker for this scope; waits while all are busy. One that ended is replaced, as is a machine that did."""
        seat = self._free.get()
        try:
            yield self._seated(seat)
        finally:
            self._free.put(seat)

    def close(self) -> None:
        """Remove the machines. The next call boots anew."""
        for berth in self._berths:
            berth.clear()

    def _seated(self, seat: _Seat[M, W]) -> W:
        machine = seat.berth.occupied()
        if seat.worker is None or seat.machine is not machine or not seat.worker.alive:
            seat.worker = None
            try:
                seat.worker = self._hire(machine)
            except (AgentError, UsageError):  # the machine died, or somebody removed it
                seat.berth.clear(machine)
                machine = seat.berth.occupied()
                seat.worker = self._hire(machine)
            seat.machine = machine
        return seat.worker
