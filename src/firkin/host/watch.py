"""Wait for files to change: inotify(7), or a short sleep where the kernel has no more watches to give."""

from __future__ import annotations

import errno
import os
import select
import time
from pathlib import Path

from firkin.errors import KernelRefused
from firkin.host import libc

FALLBACK_S = 0.05
EVENTS_BYTES = 65536


class FolderWatch:
    """Notices every write to a file of one folder, and every file that comes into it. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.fd: int | None = None
        try:
            self.fd = libc.inotify(str(folder), libc.IN_MODIFY | libc.IN_CREATE | libc.IN_MOVED_TO)
        except KernelRefused as error:
            if error.errno not in (errno.EMFILE, errno.ENOSPC):
                raise

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def wait(self, timeout_s: float) -> bool:
        """Whether something changed since the last call, or within `timeout_s` seconds; True where it is not known."""
        if self.fd is None:
            time.sleep(min(FALLBACK_S, timeout_s))
            return True
        if not select.select([self.fd], [], [], timeout_s)[0]:
            return False
        self.forget()
        return True

    def forget(self) -> None:
        """Drop what was noticed so far."""
        try:
            while self.fd is not None and os.read(self.fd, EVENTS_BYTES):
                continue
        except BlockingIOError:
            return
