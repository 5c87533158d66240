"""The engine's hold on the vhost devices of one QEMU: where their ioctls come in, and the thread that answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

from firkin.engine.vhost.service import Device, Service
from firkin.errors import EngineError


class Trap:
    """The vhost devices of one QEMU: their ioctls are answered here, and their rings served.

    The order of calls: make it, give QEMU `calls_fd` and `device_fds`, `attach`, and `close` when QEMU has ended (or
    instead of a start).
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = devices
        self._calls, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._service: Service | None = None
        self._thread: threading.Thread | None = None

    @property
    def calls_fd(self) -> int:
        """What QEMU asks on."""
        return self._theirs.fileno()

    @property
    def device_fds(self) -> list[int]:
        """What QEMU asks about, in order."""
        return [fd for device in self._devices for fd in device.trapped_fds]

    @property
    def fault(self) -> str | None:
        """Why no call can be answered. None when all is well."""
        return None if self._service is None else self._service.fault

    def attach(self, pid: int, numbers: Sequence[int]) -> None:
        """Serve QEMU `pid`, which has our device descriptors under `numbers`, from a thread of its own.

        Raises:
            EngineError: it has ended.
        """
        self._theirs.close()
        try:
            self._service = Service(self._devices, numbers, pid=pid, calls=self._calls)
        except OSError as reason:
            self._calls.close()
            raise EngineError(f"QEMU (process {pid}): {reason.strerror}") from reason
        self._thread = threading.Thread(target=self._service.run, name="vhost", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and with it what the devices did for this QEMU. Closing twice is fine."""
        if self._service is not None and self._thread is not None:
            self._service.stop()
            self._thread.join()
            self._service.close_wake()
            self._service = None
        for end in (self._calls, self._theirs):
            end.close()
