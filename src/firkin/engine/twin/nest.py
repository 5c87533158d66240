"""Where twins wait: by the files of the snapshot that they are the living form of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from firkin.engine.snapshot.saved import SavedMachine
from firkin.engine.twin.control import Control
from firkin.engine.twin.record import Record

MOST = 16


class Stamp(NamedTuple):
    """A file as it was: device, inode, size, and time of the last write in nanoseconds."""

    device: int
    inode: int
    size: int
    written_ns: int

    @classmethod
    def of(cls, path: str) -> Stamp:
        """Raises: OSError."""
        found = os.stat(path)  # noqa: PTH116 - pathlib costs start-up time
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What comes with a twin's control socket. `saved` is without the devices, which are awake in the twin."""

    state: str  # absolute paths
    memory: str
    state_stamp: Stamp
    memory_stamp: Stamp
    record: Record
    saved: SavedMachine


class Twin(NamedTuple):
    """A sleeping QEMU and what is known of it."""

    offer: Offer
    control: Control

    def is_current(self) -> bool:
        """Whether the snapshot's files are there, as they were when it fell asleep."""
        try:
            return (
                Stamp.of(self.offer.state) == self.offer.state_stamp
                and Stamp.of(self.offer.memory) == self.offer.memory_stamp
            )
        except OSError:
            return False


class Nest:
    """The newest twins. Engines that are forked from this process inherit them, and `leave` them."""

    def __init__(self) -> None:
        self._twins: dict[Stamp, Twin] = {}

    def __iter__(self) -> Iterator[Twin]:
        return iter(self._twins.values())

    def add(self, twin: Twin) -> None:
        """The one that came first goes where there are too many."""
        self._remove(twin.offer.state_stamp)
        self._twins[twin.offer.state_stamp] = twin
        if len(self._twins) > MOST:
            self._remove(next(iter(self._twins)))

    def find(self, state: str, memory: str) -> Twin | None:
        """The twin of these files."""
        try:
            twin = self._twins.get(Stamp.of(state))
            return twin if twin and Stamp.of(memory) == twin.offer.memory_stamp else None
        except OSError:
            return None

    def sort_out(self) -> None:
        """Let those go whose snapshot was removed."""
        for stamp, twin in list(self._twins.items()):
            if not twin.is_current():
                self._remove(stamp)

    def leave(self) -> None:
        """Let all of them go, as far as this process is concerned."""
        for stamp in list(self._twins):
            self._remove(stamp)

    def _remove(self, stamp: Stamp) -> None:
        if twin := self._twins.pop(stamp, None):
            twin.control.close()


# Those that this process keeps, or inherited from the zygote.
NEST = Nest()
