"""What a machine's handle does with files: copies in and out, and the guest's files one by one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from firkin.agent.process import Process

if TYPE_CHECKING:
    from firkin.agent.fs import GuestFs
    from firkin.manager.copy import Copied, Guest


class GuestFiles(ABC):
    """The part of a machine's handle that is about files."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the machine is called."""

    @abstractmethod
    def task(self, *words: str | bytes, user: str | None = None, stdin: bool = False) -> Process:
        """Start one of the agent's own functions."""

    @property
    def fs(self) -> GuestFs:
        """Files in the guest: small reads and writes, lists, events."""
        from firkin.agent.fs import GuestFs

        return GuestFs(self.task)

    def copy_in(
        self, source: str | os.PathLike[str], target: str, *, archive: bool = False, follow: bool = False
    ) -> Copied:
        """Copy a file or folder of this host into the guest, by docker cp's rules (docs/copy.md): a target that is a
        folder gets it inside, any other becomes it; `source/.` is what is in the folder. All belongs to root there,
        with `archive` to the numbers of its owners here; with `follow` a link at `source` is followed.

        Raises:
            UsageError: there is no such source, or it cannot go there.
            GuestFileError: the guest cannot write it, its disk is full, or nothing moved for 30 seconds.
            HostError: a file cannot be read, or shrank meanwhile.
        """
        from firkin.manager import copy

        return copy.copy_in(source, self._end_of_copy(), target, archive=archive, follow=follow)

    def copy_out(
        self,
        source: str,
        target: str | os.PathLike[str],
        *,
        archive: bool = False,
        follow: bool = False,
        max_bytes: int | None = None,
    ) -> Copied:
        """Copy a file or folder of the guest to this host, by the same rules. Whatever the guest sends, nothing but the
        target is written. Owners, set-user-id bits and device files are kept with `archive`, by root alone.

        Raises:
            GuestFileError: there is no such source, the guest cannot read it, it sent more than `max_bytes`, or nothing
                moved for 30 seconds.
            BadArchive: the guest sent something else than what was asked for.
            UsageError: it cannot go there. NoSpace: the disk is full. HostError: a file cannot be written.
        """
        from firkin.manager import copy

        guest = self._end_of_copy()
        return copy.copy_out(guest, source, target, archive=archive, follow=follow, max_bytes=max_bytes)

    def copy_across(self, source: str, other: GuestFiles, target: str, *, follow: bool = False) -> Copied:
        """Copy a file or folder of this guest into another machine's, by the same rules; owners are kept, and nothing
        is written on the host.

        Raises:
            GuestFileError: one of the guests cannot.
        """
        from firkin.manager import copy

        return copy.copy_across(self._end_of_copy(), source, other._end_of_copy(), target, follow=follow)

    def archive_in(self, pieces: Iterable[bytes], target: str) -> Copied:
        """Unpack a tar archive, given piece by piece, in a folder of the guest. Owners are those of the archive.

        Raises:
            GuestFileError: there is no such folder, or what the archive holds cannot be written.
        """
        from firkin.manager import copy

        return copy.archive_in(iter(pieces), self._end_of_copy(), target)

    def archive_out(self, source: str, *, follow: bool = False) -> Iterator[bytes]:
        """A file or folder of the guest as a tar archive, piece by piece.

        Raises:
            GuestFileError: there is no such source, or the guest cannot read it.
        """
        from firkin.manager import copy

        return copy.archive_out(self._end_of_copy(), source, follow=follow)

    def _end_of_copy(self) -> Guest:
        from firkin.manager.copy import Guest

        return Guest(self.task, self.name)
