"""What QEMU gives up before it exists: identity, capabilities, and the right to outlive its engine."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import struct

NOBODY = 65534

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def can_become_nobody() -> bool:
    """Whether we are root and uid and gid 65534 exist here; a user namespace may map only root.

    And whether others find any program: the root folder of a jail is closed to them.
    """
    return (
        os.geteuid() == 0
        and bool(os.stat("/").st_mode & stat.S_IXOTH)  # noqa: PTH116 - pathlib costs start-up time
        and _is_mapped("/proc/self/uid_map")
        and _is_mapped("/proc/self/gid_map")
    )


class Privileges:
    """Everything prepared in the parent, so that the forked child only makes system calls."""

    def __init__(self, group: int | None = None) -> None:
        self._group = NOBODY if group is None else group
        self.drops_root = can_become_nobody()
        self._parent = os.getpid()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._header = ctypes.create_string_buffer(struct.pack("<Ii", _LINUX_CAPABILITY_VERSION_3, 0))
        self._empty = ctypes.create_string_buffer(24)

    def drop(self) -> None:
        """In the child, before exec.

        Raises:
            OSError: one of the steps failed; the child must not go on.
        """
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the guest's memory
        self._empty_bounding_set()
        if self.drops_root:
            os.setgroups([])
            os.setresgid(self._group, self._group, self._group)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        self._check(self._libc.capset(self._header, self._empty), "capset")
        self._prctl(_PR_SET_NO_NEW_PRIVS, 1)
        # Only now: a change of user clears it. And the parent may have died before it was set.
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._parent:
            os._exit(1)

    def _empty_bounding_set(self) -> None:
        # Fails at once where we may not (then there is nothing to lose), and at the end of what the kernel knows.
        for capability in range(64):
            if self._libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
                return

    def _prctl(self, option: int, value: int) -> None:
        words = [ctypes.c_ulong(word) for word in (value, 0, 0, 0)]
        self._check(self._libc.prctl(ctypes.c_int(option), *words), f"prctl({option})")

    def _check(self, result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")


def _is_mapped(path: str) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
            ranges = [[int(word) for word in line.split()] for line in file]
    except OSError:
        return False
    return any(first <= NOBODY < first + count for first, _outside, count in ranges)
