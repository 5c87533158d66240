"""The working half of a vsock device: QEMU's rings on one side, the host's sockets on the other."""

from __future__ import annotations

import os
import socket

from firkin.engine.vhost.memory import RingBroken
from firkin.engine.vhost.reactor import EDGE, READ
from firkin.engine.vhost.service import Surroundings
from firkin.engine.vhost.vring import NO_FD
from firkin.engine.vsock.clock import RunClock
from firkin.engine.vsock.control import VsockControl
from firkin.engine.vsock.doorway import Doorway
from firkin.engine.vsock.muxer import FIRST_HOST_PORT, Muxer
from firkin.engine.vsock.pump import Pump


class VsockBackend:
    """Lives in the service's thread."""

    def __init__(
        self,
        surroundings: Surroundings,
        listener: socket.socket,
        *,
        uds_path: str,
        guest_cid: int,
        first_port: int | None,
    ) -> None:
        """Takes over `listener`."""
        self.fault: str | None = None
        self._reactor = surroundings.reactor
        self._clock = RunClock()
        self._doorway = Doorway(self._reactor, self._clock, listener, uds_path)
        self._random_port = first_port is None
        self.muxer = Muxer(guest_cid, self._doorway.dial, next_host_port=first_port or FIRST_HOST_PORT)
        self._doorway.muxer = self.muxer
        self._control = VsockControl(surroundings.memory, surroundings.fetch_eventfd, self, guest_cid=guest_cid)
        self._pump = Pump(surroundings.memory, self._control.vrings, self.muxer)
        self._serving = False
        self._last_session: object = None

    def answer(self, request: int, argument: int) -> int:
        return self._control.answer(request, argument)

    def run_once(self) -> bool:
        if not self._serving:
            return False
        try:
            now_s = self._clock.now_s()
            self.muxer.tick(now_s)
            return self._pump.run_once(now_s)
        except RingBroken as reason:
            self._disable(reason)
            return False

    def patience_s(self) -> float | None:
        waits_s = [self._doorway.tick()]
        tick_s = self.muxer.next_tick_s() if self._serving else None
        if tick_s is not None:
            waits_s.append(max(0.0, tick_s - self._clock.now_s()))
        return min((wait_s for wait_s in waits_s if wait_s is not None), default=None)

    def close(self) -> None:
        self.muxer.close()
        self._doorway.close()
        self._control.close()

    # --- the device starts and stops (vhost.control.Listener)

    def started(self) -> None:
        """Go on where a pause left off, or forget what an earlier life of the driver knew."""
        self.muxer.guest_cid = self._control.guest_cid
        if self._session() != self._last_session:
            self._pump.forget()
            self.muxer.reset()
        self._choose_ports()
        self.fault = None
        self._serving = True
        self._clock.start()
        for index, vring in enumerate(self._control.vrings):
            self._watch_kick(index, vring.fds["kick"])
            self._pump.kicked(index)
        self._doorway.refusing = False
        self._doorway.open()

    def stopped(self) -> None:
        self._last_session = self._session() if self.fault is None else None
        self._clock.stop()
        self._unwatch()
        self._doorway.shut()

    def kick_changed(self, index: int, old_fd: int) -> None:
        """Drop the old descriptor while it is open: QEMU holds a copy, so closing ours would leave it in the set."""
        self._reactor.remove(old_fd)
        if self._serving:
            self._watch_kick(index, self._control.vrings[index].fds["kick"])
            self._pump.kicked(index)

    def _session(self) -> object:
        """Equal before and after a pause; a driver that starts anew has its rings elsewhere or at their beginning."""
        return tuple((vring.ring_layout(), vring.base) for vring in self._control.vrings), self._control.features

    def _choose_ports(self) -> None:
        """A restored guest may still hold connections from its earlier life: stay clear of their ports."""
        if self._random_port and any(vring.base for vring in self._control.vrings):
            self.muxer.next_host_port = FIRST_HOST_PORT + int.from_bytes(os.urandom(3), "little") * 64
        self._random_port = False

    def _watch_kick(self, index: int, fd: int) -> None:
        # Edge-triggered, so nobody has to read the counter: QEMU may take its doorbell back with it intact.
        if fd != NO_FD:
            self._reactor.add(fd, READ | EDGE, lambda _: self._pump.kicked(index))

    def _unwatch(self) -> None:
        self._serving = False
        for vring in self._control.vrings:
            self._reactor.remove(vring.fds["kick"])

    def _disable(self, reason: RingBroken) -> None:
        """The guest broke its rings: leave them alone until its driver starts the device again."""
        self.fault = str(reason)
        self._doorway.refusing = True
        self._unwatch()
        self.muxer.reset()
