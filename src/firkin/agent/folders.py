"""The folders on the way into a tree, held open. Each is reached from the one above and never through a link, so that
nothing that is done with them leaves the tree, whatever was put into it in the meantime."""

from __future__ import annotations

import os
from collections.abc import Callable

from firkin.agent.members import Parts

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Leave = Callable[[int], None]  # what is still to be done with a folder when all is in it


class Folders:
    """Where we are below `root`, a descriptor that stays the caller's."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: list[tuple[bytes, int, Leave | None]] = []

    def reach(self, parts: Parts) -> int:
        """The descriptor of a folder, good until the next call. Folders that are not on the way to it are left.

        Raises:
            OSError: there is none, or a link is on the way.
        """
        known = 0
        while known < min(len(parts), len(self._open)) and self._open[known][0] == parts[known]:
            known += 1
        self._keep(known)
        for part in parts[known:]:
            self._enter(part, None)
        return self._here

    def make(self, parts: Parts, leave: Leave) -> None:
        """Make a folder for its owner alone and go there; `leave` is called when it is left. One that exists is taken
        as it is.

        Raises:
            OSError: something else has the name.
        """
        above = self.reach(parts[:-1])
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=above)
        except FileExistsError:
            self._enter(parts[-1], None)
        else:
            self._enter(parts[-1], leave)

    def close(self) -> None:
        """Leave them all."""
        self._keep(0)

    def abandon(self) -> None:
        """Close them all as they are."""
        while self._open:
            os.close(self._open.pop()[1])

    @property
    def _here(self) -> int:
        return self._open[-1][1] if self._open else self._root

    def _enter(self, part: bytes, leave: Leave | None) -> None:
        self._open.append((part, os.open(part, FOLDER, dir_fd=self._here), leave))

    def _keep(self, count: int) -> None:
        while len(self._open) > count:
            _, fd, leave = self._open.pop()
            try:
                if leave is not None:
                    leave(fd)
            finally:
                os.close(fd)
