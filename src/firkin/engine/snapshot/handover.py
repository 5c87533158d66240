"""Give QEMU a memory file that it cannot write, though it insists on opening one for reading and writing.

A private mapping needs no right to write, but QEMU asks for it, and as another user it may not even read the file. So
the descriptor, open for reading, becomes QEMU's standard input, and a seccomp filter answers its open(2) with 0: the
number of that descriptor. Memory backends are all that QEMU opens with exactly these flags; whatever else tried would
get a file that it can only read.
"""

from __future__ import annotations

import ctypes
import os
import struct

_AUDIT_ARCH_X86_64 = 0xC000003E
_NR_OPEN, _NR_OPENAT = 2, 257
_AT_NR, _AT_ARCH, _AT_ARG1, _AT_ARG2 = 0, 4, 24, 32
_LD, _JEQ, _RET = 0x20, 0x15, 0x06
_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000  # and errno 0 is success, with the value 0
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Handover:
    """Made ahead of the fork, so that the child makes nothing but system calls."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        code = build_filter()
        self._buffer = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.addressof(self._buffer))

    def install(self) -> None:
        """In the child, for good: from now on opening a file for reading and writing gives this one, for reading.

        Raises:
            OSError: the kernel has no seccomp filters.
        """
        os.dup2(self._fd, 0)
        arguments = [ctypes.c_ulong(0)] * 3
        if (
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *arguments) != 0
            or _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(self._program), 0, 0) != 0
        ):
            number = ctypes.get_errno()
            raise OSError(number, f"seccomp filter: {os.strerror(number)}")


def build_filter() -> bytes:
    """The filter in classic BPF. Jumps count the instructions that they skip."""
    steps = (
        (_LD, 0, 0, _AT_ARCH),
        (_JEQ, 0, 8, _AUDIT_ARCH_X86_64),
        (_LD, 0, 0, _AT_NR),
        (_JEQ, 3, 0, _NR_OPENAT),
        (_JEQ, 0, 5, _NR_OPEN),
        (_LD, 0, 0, _AT_ARG1),
        (_JEQ, 2, 3, os.O_RDWR),
        (_LD, 0, 0, _AT_ARG2),
        (_JEQ, 0, 1, os.O_RDWR),
        (_RET, 0, 0, _RET_ERRNO),
        (_RET, 0, 0, _RET_ALLOW),
    )
    return b"".join(struct.pack("<HBBI", *step) for step in steps)
