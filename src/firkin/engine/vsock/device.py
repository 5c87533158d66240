"""Firecracker's vsock device for QEMU: what the engine makes at PUT /vsock and ties to the process it spawns."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import asdict

from firkin.engine.vsock import seccomp, streams
from firkin.engine.vsock.muxer import FIRST_HOST_PORT
from firkin.engine.vsock.service import Service
from firkin.engine.vsock.vhost import IOCTL_TYPE
from firkin.errors import EngineError

ATTACH_TIMEOUT_S = 10.0


class VsockDevice:
    """A guest's AF_VSOCK on a unix socket of the host.

    The order of calls: make it, pass `qemu_args` and `inherited_fds` to the spawn, `child_setup` in the child, `attach`
    in the parent, `close` when QEMU has ended (or instead of a spawn).
    """

    def __init__(self, guest_cid: int, uds_path: str, *, first_host_port: int | None = None) -> None:
        """Bind `uds_path`, relative to the working directory, and accept nobody before the guest's driver is up.

        `first_host_port` continues the count of a snapshot's device (`next_host_port`); without it a fresh guest's
        connections count up from 1 << 30, and a restored guest's from a random port.

        Raises:
            OSError: EADDRINUSE when the path exists, ENAMETOOLONG above 107 bytes, or as bind(2).
        """
        self._guest_cid = guest_cid
        self._uds_path = uds_path
        self._first_host_port = first_host_port
        self._listener = streams.bind(uds_path)
        # QEMU wants a descriptor to make its vhost calls on; the filter answers before the file is asked.
        self._vhost_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._filter = seccomp.IoctlFilter(self._vhost_fd, IOCTL_TYPE)
        self._parent_end, self._child_end = socket.socketpair()
        self._service: Service | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def next_host_port(self) -> int:
        """The port of the host's next connection, for a snapshot to keep."""
        if self._service is not None:
            return self._service.muxer.next_host_port
        return self._first_host_port or FIRST_HOST_PORT

    def counters(self) -> dict[str, int]:
        """What passed, by the metrics' names."""
        return {} if self._service is None else asdict(self._service.muxer.counters)

    @property
    def fault(self) -> str | None:
        """Why the device is out of service: what the guest did to its rings. None when all is well."""
        return None if self._service is None else self._service.fault

    def qemu_args(self) -> list[str]:
        return ["-device", f"vhost-vsock-device,guest-cid={self._guest_cid},vhostfd={self._vhost_fd}"]

    def inherited_fds(self) -> tuple[int, ...]:
        """Descriptors that must keep their numbers across exec."""
        return (self._vhost_fd,)

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
            raise EngineError(f"vsock {self._uds_path}: QEMU (process {pid}) ended before it was set up")
        try:
            self._service = Service(
                self._uds_path,
                self._listener,
                self._guest_cid,
                pid=pid,
                notify_fd=notify_fd,
                first_port=self._first_host_port,
            )
        except OSError as reason:
            os.close(notify_fd)
            raise EngineError(f"vsock {self._uds_path}: process {pid}: {reason.strerror}") from reason
        self._thread = threading.Thread(target=self._service.run, name="vsock", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and every connection. The socket's file stays, as Firecracker leaves it."""
        if self._closed:
            return
        self._closed = True
        if self._service is not None and self._thread is not None:
            self._service.stop()
            self._thread.join()
            self._service.close_wake()
        for end in (self._listener, self._parent_end, self._child_end):
            end.close()
        os.close(self._vhost_fd)
