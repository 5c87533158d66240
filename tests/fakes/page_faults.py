"""A page fault handler as Firecracker's users write them: memory from a file, a page for each fault."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import threading
from pathlib import Path

_EVENT = struct.Struct("<B7xQQQ")  # type, and of a page fault flags and address
_PAGE_FAULT, _IOCTL_COPY = 0x12, 0xC028AA03


class PageFaultHandler:
    """Listens at `path` and serves one memory from `source` in a thread; `served` counts its pages."""

    def __init__(self, path: Path, source: Path, *, pages_at_once: int = 1, stops_after: int | None = None) -> None:
        self.served = 0
        self.region: dict[str, int] = {}
        self._at_once = pages_at_once
        self._stops_after = stops_after
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        with source.open("rb") as file:
            self._source = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        self._done = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.eventfd_write(self._done, 1)
        self._thread.join(5)
        self._listener.close()
        self._source.close()
        os.close(self._done)

    def _serve(self) -> None:
        ready: list[object] = list(select.select([self._listener.fileno(), self._done], [], [])[0])
        if ready != [self._listener.fileno()]:
            return
        engine, _ = self._listener.accept()
        message, (uffd,), _flags, _address = socket.recv_fds(engine, 4096, 1)
        (self.region,) = json.loads(message)
        while select.select([uffd, self._done], [], [])[0] == [uffd]:
            if self._stops_after is None or self.served < self._stops_after:
                self._answer(uffd)
            elif select.select([self._done], [], [])[0]:
                break
        os.close(uffd)
        engine.close()

    def _answer(self, uffd: int) -> None:
        try:
            kind, _flags, address, _more = _EVENT.unpack(os.read(uffd, _EVENT.size))
        except BlockingIOError:
            return
        if kind != _PAGE_FAULT:
            return
        page = self.region["page_size"]
        offset = (address - self.region["base_host_virt_addr"]) // page * page
        size = min(self._at_once * page, self.region["size"] - offset)
        self.served += size // page  # before the engine can go on
        anchor = ctypes.c_char.from_buffer(self._source)
        source = ctypes.addressof(anchor) + self.region["offset"] + offset
        del anchor
        try:
            request = struct.pack("<QQQQq", self.region["base_host_virt_addr"] + offset, source, size, 0, 0)
            fcntl.ioctl(uffd, _IOCTL_COPY, request)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
