"""Guest memory out of another process's hands: Firecracker's page fault handlers, served before the guest starts.

The handler gets what Firecracker gives it: a userfaultfd, and one message that says which memory it is for. The faults
are the engine's own. It touches every page once, in a mapping that shares its pages with QEMU's, because QEMU's faults
could not be told to anybody. So the handler fills all memory at load, and afterwards it hears nothing more.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import threading
import time
from contextlib import ExitStack

import msgspec

from firkin.engine.snapshot.memory import OwnMemory
from firkin.engine.snapshot.pagemap import PAGE_SIZE

PATIENCE_S = 30.0  # without a single page
_HUGE_PAGE_SIZE = 2 << 20

_NR_USERFAULTFD, _USER_MODE_ONLY = 323, 1
_API, _IOCTL_API, _IOCTL_REGISTER = 0xAA, 0xC018AA3F, 0xC020AA00
_MISSING = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)


class HandlerFailed(OSError):
    """The handler cannot be reached, or gives no pages. `what` is what Firecracker says of the step."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(number, os.strerror(number))
        self.what = what


class HandledMemory(OwnMemory):
    """Memory that a page fault handler filled."""

    def __init__(self, size: int, handler: str, *, huge_pages: bool, track: bool) -> None:
        """Waits until all is there.

        Raises:
            HandlerFailed: it does not listen, or brings nothing for half a minute.
            OSError: there is not so much memory.
        """
        super().__init__(size, huge_pages=huge_pages, track=track)
        self._page_size = _HUGE_PAGE_SIZE if huge_pages else PAGE_SIZE
        self._touched = 0
        with ExitStack() as undo:
            undo.callback(super().close)
            self._mapping = undo.enter_context(mmap.mmap(self.fd, size))
            anchor = ctypes.c_char.from_buffer(self._mapping)
            self._base = ctypes.addressof(anchor)
            del anchor
            self._uffd = self._register()
            undo.callback(os.close, self._uffd)
            self._handler = self._introduce(handler)
            undo.pop_all()
        self._fill()
        self._note_all()

    def close(self) -> None:
        os.close(self._uffd)
        self._handler.close()
        self._mapping.close()
        super().close()

    def _register(self) -> int:
        uffd = _userfaultfd()
        try:
            fcntl.ioctl(uffd, _IOCTL_API, struct.pack("<QQQ", _API, 0, 0))
            fcntl.ioctl(uffd, _IOCTL_REGISTER, struct.pack("<QQQQ", self._base, self.size, _MISSING, 0))
        except OSError as error:
            os.close(uffd)
            what = "Failed to register memory address range with the userfaultfd object"
            raise HandlerFailed(what, error.errno or 0) from error
        return uffd

    def _introduce(self, path: str) -> socket.socket:
        handler = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            handler.connect(path)
        except OSError as error:
            handler.close()
            raise HandlerFailed("Failed to connect to UDS Unix stream", error.errno or 0) from error
        region = {
            "base_host_virt_addr": self._base,
            "size": self.size,
            "offset": 0,
            "page_size": self._page_size,
            "page_size_kib": self._page_size,  # in bytes, as upstream
        }
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", self._uffd))]
        try:
            handler.sendmsg([msgspec.json.encode([region])], rights)
        except OSError as error:
            handler.close()
            raise HandlerFailed("Failed to sends file descriptor", error.errno or 0) from error  # sic
        return handler

    def _fill(self) -> None:
        # A thread that waits for a page cannot be woken, only left behind: the process is about to end then.
        toucher = threading.Thread(target=self._touch_all, name="uffd", daemon=True)
        toucher.start()
        seen, since = -1, time.monotonic()
        while toucher.is_alive():
            toucher.join(0.05)
            if self._touched != seen:
                seen, since = self._touched, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                raise HandlerFailed("The page fault handler does not answer", errno.ETIMEDOUT)

    def _touch_all(self) -> None:
        for page in range(0, self.size, self._page_size):
            _libc.memchr(self._base + page, 0, 1)  # in C, so that other threads go on while it waits
            self._touched = page + 1


def _userfaultfd() -> int:
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    # Who may not handle the kernel's faults may handle a process's own; these are.
    for more in (0, _USER_MODE_ONLY):
        fd: int = _libc.syscall(_NR_USERFAULTFD, flags | more)
        if fd >= 0:
            return fd
    raise HandlerFailed("Failed to create UFFD object", ctypes.get_errno())
