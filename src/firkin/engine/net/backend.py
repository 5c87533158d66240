"""The working half of an interface: QEMU's rings on one side, the tap on the other."""

from __future__ import annotations

from firkin.engine.net.control import MERGEABLE, NetControl
from firkin.engine.net.pump import Pump
from firkin.engine.net.standin import StandIn
from firkin.engine.vhost.backend import RingBackend
from firkin.engine.vhost.reactor import EDGE, READ
from firkin.engine.vhost.service import Surroundings


class NetBackend(RingBackend):
    """Lives in the service's thread."""

    def __init__(self, surroundings: Surroundings, tap: int, stand_in: StandIn) -> None:
        """`pump` has to be set before the first call. `tap` and `stand_in` stay the caller's."""
        super().__init__(surroundings.reactor)
        self.control: NetControl = NetControl(surroundings.memory, surroundings.fetch_eventfd, self, stand_in)
        self.pump: Pump
        self._tap = tap

    def serve(self) -> bool:
        return self.pump.run_once()

    def kicked(self, index: int) -> None:
        self.pump.kicked(index)

    def patience_s(self) -> float | None:
        return self.pump.patience_s() if self.serving else None

    def begin(self) -> None:
        self.pump.mergeable = bool(self.control.features & MERGEABLE)
        # Frames that came before wait in the tap, and no edge tells of them.
        self.pump.tap_readable()
        self.reactor.add(self._tap, READ | EDGE, lambda _: self.pump.tap_readable())

    def end(self) -> None:
        self.reactor.remove(self._tap)

    def broken(self) -> None:
        self.reactor.remove(self._tap)

    def close(self) -> None:
        self.reactor.remove(self._tap)
        self.control.close()
