"""A file that appears under its name whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from types import TracebackType
from typing import Self

_MODE = os.O_RDWR | os.O_CLOEXEC


class Draft:
    """A new file beside `path`, open as `fd`, that takes its place when `commit` is called; without, nothing changed.

    Whoever has the old file open or mapped keeps it as it was. Links are followed, and the new file has the old one's
    mode and owner. Written in place is what is asked to be, and what cannot be replaced: no regular file, or one in a
    folder that is not ours.
    """

    def __init__(self, path: str, *, in_place: bool = False) -> None:
        """Raises: OSError, as open(2)."""
        self._path = os.path.realpath(path)
        self._old = _stat(self._path)
        self._regular = self._old is None or stat.S_ISREG(self._old.st_mode)
        self._name: str | None = None
        if self._old is None or (self._regular and not in_place):
            self.fd = self._open_new()
        else:
            self.fd = os.open(self._path, _MODE)
        self.in_place = self._name is None

    def withdraw_old(self) -> None:
        """Take away what stands there now, ahead of `commit`; of a file in place, its content. Raises: OSError."""
        if self.in_place:
            if self._regular:
                os.ftruncate(self.fd, 0)
        elif self._old is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - pathlib costs start-up time

    def commit(self) -> None:
        """Make it durable and put it in its place. Raises: OSError."""
        if self._name is not None and self._old is not None:
            os.fchmod(self.fd, stat.S_IMODE(self._old.st_mode))
            with contextlib.suppress(PermissionError):
                os.fchown(self.fd, self._old.st_uid, self._old.st_gid)
        if self._regular:
            os.fsync(self.fd)
        if self._name is not None:
            os.replace(self._name, self._path)  # noqa: PTH105 - as above
            self._name = None

    def _open_new(self) -> int:
        folder, name = os.path.split(self._path)
        # Cut, so that a name of the longest allowed length still works.
        new = f"{folder}/.{name[:100]}.{os.urandom(6).hex()}"
        try:
            fd = os.open(new, _MODE | os.O_CREAT | os.O_EXCL, 0o666)
        except PermissionError:
            if self._old is None:
                raise
            return os.open(self._path, _MODE)
        self._name = new
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
        if self._name is not None:
            os.unlink(self._name)  # noqa: PTH108 - as above


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - as above
    except FileNotFoundError:
        return None
