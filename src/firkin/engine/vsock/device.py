"""Firecracker's vsock device for QEMU: what the engine makes at PUT /vsock and keeps while a guest runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict

from firkin.engine.vhost.service import Surroundings
from firkin.engine.vsock import streams
from firkin.engine.vsock.backend import VsockBackend
from firkin.engine.vsock.muxer import FIRST_HOST_PORT

DEVICE_ID = "vsock"  # QEMU's name for it


class VsockDevice:
    """A guest's AF_VSOCK on a unix socket of the host. It serves one QEMU, through a vhost.Trap."""

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
        # QEMU wants a descriptor to make its vhost calls on; its library asks us before the file is asked.
        self._vhost_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._backend: VsockBackend | None = None
        self._resets: Sequence[tuple[int, int]] | None = None
        self._closed = False

    @property
    def next_host_port(self) -> int:
        """The port of the host's next connection, for a snapshot to keep."""
        if self._backend is not None:
            return self._backend.muxer.next_host_port
        return self._first_host_port or FIRST_HOST_PORT

    def counters(self) -> dict[str, int]:
        """What passed, by the metrics' names."""
        return {} if self._backend is None else asdict(self._backend.muxer.counters)

    @property
    def fault(self) -> str | None:
        """Why the device is out of service: what the guest did to its rings. None when all is well."""
        return None if self._backend is None else self._backend.fault

    def qemu_args(self) -> list[str]:
        return ["-device", f"vhost-vsock-device,id={DEVICE_ID},guest-cid={self._guest_cid},vhostfd={self._vhost_fd}"]

    @property
    def trapped_fds(self) -> tuple[int, ...]:
        return (self._vhost_fd,)

    def open(self, surroundings: Surroundings) -> VsockBackend:
        self._backend = VsockBackend(
            surroundings,
            self._listener,
            uds_path=self._uds_path,
            guest_cid=self._guest_cid,
            first_port=self._first_host_port,
        )
        self._backend.known_connections = self._resets
        return self._backend

    def connections(self) -> list[tuple[int, int]]:
        """Pairs of host and guest port that the guest believes to be open."""
        return [] if self._backend is None else self._backend.muxer.pairs()

    def expect_resets(self, connections: Sequence[tuple[int, int]]) -> None:
        """Before the copy of a QEMU runs: its guest has these connections, and is told that they are over."""
        self._resets = connections

    def expect_notice(self, event_ring: int | None) -> None:
        """Before a restored guest runs: where its driver offers buffers for events, None where that is not known.

        Whoever knocks is let in once the driver has taken the notice that it was restored.
        """
        if self._backend is not None:
            self._backend.event_ring = event_ring

    def close(self) -> None:
        """When no trap serves it any more. The socket's file stays, as Firecracker leaves it."""
        if not self._closed:
            self._closed = True
            self._listener.close()
            os.close(self._vhost_fd)
