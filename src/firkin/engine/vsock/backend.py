"""The working half of a vsock device: QEMU's rings on one side, the host's sockets on the other."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from firkin.engine.vhost.backend import RingBackend
from firkin.engine.vhost.memory import RingBroken
from firkin.engine.vhost.service import Surroundings
from firkin.engine.vsock.clock import RunClock
from firkin.engine.vsock.control import VsockControl
from firkin.engine.vsock.doorway import Doorway
from firkin.engine.vsock.muxer import FIRST_HOST_PORT, Muxer
from firkin.engine.vsock.notice import Notice
from firkin.engine.vsock.pump import Pump

SETTLE_S = 0.02  # what a restored guest is given to take the notice where its taking cannot be seen
LOOK_S = 0.0005


class VsockBackend(RingBackend):
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
        super().__init__(surroundings.reactor)
        self._clock = RunClock()
        self._doorway = Doorway(self.reactor, self._clock, listener, uds_path)
        self._random_port = first_port is None
        self.muxer = Muxer(guest_cid, self._doorway.dial, next_host_port=first_port or FIRST_HOST_PORT)
        self._doorway.muxer = self.muxer
        self.control: VsockControl = VsockControl(
            surroundings.memory, surroundings.fetch_eventfd, self, guest_cid=guest_cid
        )
        self._pump = Pump(surroundings.memory, self.control.vrings, self.muxer)
        self._last_session: object = None
        self.event_ring: int | None = None  # guest address, known of a restored guest
        self.known_connections: Sequence[tuple[int, int]] | None = None  # those of the guest of a copied QEMU
        self._notice: Notice | None = None

    def serve(self) -> bool:
        now_s = self._clock.now_s()
        self.muxer.tick(now_s)
        return self._pump.run_once(now_s)

    def kicked(self, index: int) -> None:
        self._pump.kicked(index)

    def patience_s(self) -> float | None:
        waits_s = [self._doorway.tick(), self._look_for_notice()]
        tick_s = self.muxer.next_tick_s() if self.serving else None
        if tick_s is not None:
            waits_s.append(max(0.0, tick_s - self._clock.now_s()))
        return min((wait_s for wait_s in waits_s if wait_s is not None), default=None)

    def close(self) -> None:
        self.muxer.close()
        self._doorway.close()
        self.control.close()

    def begin(self) -> None:
        """Go on where a pause left off, or forget what an earlier life of the driver knew."""
        self.muxer.guest_cid = self.control.guest_cid
        resumes = self._session() == self._last_session
        if not resumes:
            self._pump.forget()
            self.muxer.reset()
        self._choose_ports()
        self._clock.start()
        self._doorway.refusing = False
        if self.known_connections is not None:
            self.muxer.break_off(self.known_connections)
            self.known_connections = None
            self._doorway.open()
        elif not resumes and self._is_restored():
            self._open_after_notice()
        else:
            self._doorway.open()

    def end(self) -> None:
        self._notice = None
        self._last_session = self._session() if self.fault is None else None
        self._clock.stop()
        self._doorway.shut()

    def broken(self) -> None:
        self._doorway.refusing = True
        self.muxer.reset()

    def _open_after_notice(self) -> None:
        """Who knocks on a restored guest earlier waits, or it would be let in only to be thrown out."""
        try:
            self._notice = None if self.event_ring is None else Notice(self.control.memory, self.event_ring)
        except RingBroken:
            self._notice = None
        if self._notice is None:
            self._doorway.open_in(SETTLE_S)

    def _look_for_notice(self) -> float | None:
        if self._notice is None:
            return None
        if not self._notice.is_over():
            return LOOK_S
        self._notice = None
        self._doorway.open()
        return None

    def _session(self) -> object:
        """Equal before and after a pause; a driver that starts anew has its rings elsewhere or at their beginning."""
        return tuple((vring.ring_layout(), vring.base) for vring in self.control.vrings), self.control.features

    def _is_restored(self) -> bool:
        return any(vring.base for vring in self.control.vrings)

    def _choose_ports(self) -> None:
        """A restored guest may still hold connections from its earlier life: stay clear of their ports."""
        if self._random_port and self._is_restored():
            self.muxer.next_host_port = FIRST_HOST_PORT + int.from_bytes(os.urandom(3), "little") * 64
        self._random_port = False
