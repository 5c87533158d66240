"""The engine's hold on one QEMU: the filter in front of its ioctls, and the thread that answers them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence

from firkin.engine.vhost import seccomp
from firkin.engine.vhost.service import Device, Service
from firkin.errors import EngineError

ATTACH_TIMEOUT_S = 10.0


class Trap:
    """The vhost devices of one QEMU: their ioctls are answered here, and their rings served.

    The order of calls: make it, pass `inherited_fds` to the spawn, `child_setup` in the child, `attach` in the parent,
    `close` when QEMU has ended (or instead of a spawn). A process can have only one, hence one for all devices.
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = devices
        self.inherited_fds = tuple(fd for device in devices for fd in device.trapped_fds)
        self._filter = seccomp.Filter(self.inherited_fds)
        self._parent_end, self._child_end = socket.socketpair()
        self._service: Service | None = None
        self._thread: threading.Thread | None = None

    @property
    def fault(self) -> str | None:
        """Why no call can be answered. None when all is well."""
        return None if self._service is None else self._service.fault

    def child_setup(self) -> None:
        """In the forked child, as the user QEMU will run as, before descriptors are closed and the program starts.

        Raises:
            OSError: the kernel refuses the filter.
        """
        listener = self._filter.install()
        seccomp.send_fd(self._child_end, listener)
        os.close(listener)

    def attach(self, pid: int) -> None:
        """In the parent, right after the fork: serve the child `pid` from a thread of its own.

        Raises:
            EngineError: the child ended, or took longer than 10 seconds, before it had set up its side.
        """
        self._child_end.close()
        self._parent_end.settimeout(ATTACH_TIMEOUT_S)
        try:
            notify_fd = seccomp.receive_fd(self._parent_end)
        except TimeoutError:
            notify_fd = None
        self._parent_end.close()
        if notify_fd is None:
            raise EngineError(f"QEMU (process {pid}) ended before it was set up")
        try:
            self._service = Service(self._devices, pid=pid, notify_fd=notify_fd)
        except OSError as reason:
            os.close(notify_fd)
            raise EngineError(f"process {pid}: {reason.strerror}") from reason
        self._thread = threading.Thread(target=self._service.run, name="vhost", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and with it what the devices did for this QEMU. Closing twice is fine."""
        if self._service is not None and self._thread is not None:
            self._service.stop()
            self._thread.join()
            self._service.close_wake()
            self._service = None
        for end in (self._parent_end, self._child_end):
            end.close()
