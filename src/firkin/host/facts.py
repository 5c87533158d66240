"""Plain facts about this host, each one read when asked for. The host check judges them."""

from __future__ import annotations

import ctypes
import grp
import os
import platform
import pwd
import shutil
from contextlib import suppress
from pathlib import Path

from firkin.errors import FirkinError, ProgramMissing
from firkin.host import kvm, run
from firkin.host.kvm import KvmVerdict

PROGRAM_TIMEOUT_S = 5.0


class LocalHost:
    """The host we run on."""

    def __init__(self, kvm_cache: Path) -> None:
        self._kvm_cache = kvm_cache

    @property
    def uid(self) -> int:
        return os.geteuid()

    @property
    def user(self) -> str:
        """Name of the user, or the number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def architecture(self) -> str:
        return platform.machine()

    @property
    def release(self) -> str:
        """As `uname -r` prints it."""
        return platform.release()

    def kvm(self) -> KvmVerdict:
        """Measured anew, and remembered for everyone else."""
        return kvm.verdict(self._kvm_cache, fresh=True)

    def in_group(self, name: str) -> bool:
        """Is this process a member, now? A group joined after login does not count yet."""
        try:
            return grp.getgrnam(name).gr_gid in (os.getegid(), *os.getgroups())
        except KeyError:
            return False

    def exists(self, path: str) -> bool:
        return Path(path).exists()

    def mode(self, path: str) -> int | None:
        """Permission bits; None when there is no such file."""
        try:
            return Path(path).stat().st_mode & 0o7777
        except OSError:
            return None

    def openable(self, path: str) -> bool:
        """Can it be opened for reading and writing? A device's node may outlive its driver, so we try."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def read(self, path: str) -> str:
        """The file's text without blanks around it; empty when it cannot be read."""
        try:
            return Path(path).read_text().strip()
        except OSError:
            return ""

    def program(self, name: str) -> str:
        """Absolute path; empty when it is not installed."""
        try:
            return run.find(name)
        except ProgramMissing:
            return ""

    def first_line(self, *argv: str) -> str:
        """First line of what a program says; empty when it fails."""
        with suppress(FirkinError):
            return run.run(*argv, timeout_s=PROGRAM_TIMEOUT_S).stdout.partition("\n")[0].strip()
        return ""

    def library(self, name: str) -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    def free_mib(self, folder: Path) -> int:
        """Disk space a user may take at `folder`, or at the nearest parent that exists."""
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free // 2**20
