"""An interface of the machine: what the engine makes at PUT /network-interfaces and keeps while a guest runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from firkin.engine.limiter import Limiter
from firkin.engine.net.backend import NetBackend
from firkin.engine.net.counters import Counters
from firkin.engine.net.pump import Pump, Stack
from firkin.engine.net.standin import StandIn
from firkin.engine.twin.record import Interface
from firkin.engine.vhost.service import Surroundings
from firkin.fcapi.network import NetworkInterface, NetworkInterfacePatch


class NetDevice:
    """Serves one QEMU, through a vhost.Trap."""

    def __init__(self, config: NetworkInterface, tap: int) -> None:
        """Takes over `tap`, an open tap device that does not block."""
        self._tap = tap
        self._stand_in = StandIn(tap)
        self.counters = Counters()
        self.stack: Stack | None = None
        self._mac = bytes.fromhex(config.guest_mac.replace(":", "")) if config.guest_mac else None
        self._limits = Limiter(config.rx_rate_limiter), Limiter(config.tx_rate_limiter)
        # QEMU wants a descriptor to make its vhost calls on; its library asks us before the file is asked.
        self.vhost_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._backend: NetBackend | None = None
        self._soon: Callable[[Callable[[], None]], None] | None = None

    @property
    def fault(self) -> str | None:
        """Why the interface is out of service: what the guest did to its rings. None when all is well."""
        return None if self._backend is None else self._backend.fault

    @property
    def tap_fd(self) -> int:
        """What QEMU takes for the tap."""
        return self._stand_in.fd

    @property
    def trapped_fds(self) -> tuple[int, ...]:
        return (self.vhost_fd, self.tap_fd)

    def open(self, surroundings: Surroundings) -> NetBackend:
        backend = NetBackend(surroundings, self._tap, self._stand_in)
        backend.pump = Pump(
            surroundings.memory,
            backend.control.vrings,
            self._tap,
            mac=self._mac,
            limits=self._limits,
            counters=self.counters,
            stack=self.stack,
        )
        self._backend, self._soon = backend, surroundings.soon
        return backend

    def interface(self) -> Interface:
        """What QEMU asked of the tap, for a copy of it that will not ask."""
        return self._stand_in.interface()

    def resume(self, interface: Interface) -> None:
        """Serve such a copy. Raises: OSError, if the tap cannot do the same."""
        self._stand_in.resume(interface)

    def limit(self, patch: NetworkInterfacePatch) -> None:
        """Replace the buckets that are given, also while frames pass."""
        if self._soon is None:
            self._update(patch)
        else:
            self._soon(partial(self._update, patch))

    def close(self) -> None:
        """When no trap serves it any more."""
        self._stand_in.close()
        os.close(self._tap)
        os.close(self.vhost_fd)

    def _update(self, patch: NetworkInterfacePatch) -> None:
        for limiter, change in zip(self._limits, (patch.rx_rate_limiter, patch.tx_rate_limiter), strict=True):
            if change is not None:
                limiter.update(change)
        if self._backend is not None:
            self._backend.pump.unblock()
