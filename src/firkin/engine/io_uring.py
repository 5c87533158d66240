"""Whether io_uring may be used here: kernels lack it, and many hosts forbid it."""

from __future__ import annotations

import ctypes
import os

_SYS_IO_URING_SETUP = 425
_PARAMS_SIZE = 120


def is_allowed() -> bool:
    """Whether an unprivileged QEMU could make a ring."""
    try:
        with open("/proc/sys/kernel/io_uring_disabled", "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
            if file.read().strip() != b"0":
                return False
    except OSError:
        pass  # kernels before 6.6 have no such switch
    fd = ctypes.CDLL(None).syscall(_SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(_PARAMS_SIZE))
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)
