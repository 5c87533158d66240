"""Files in the guest, to await: the twins of `firkin.GuestFs` and `firkin.Watch`, carried by threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from firkin.agent import fs
from firkin.aio.threads import in_thread, iterate, made, threaded

if TYPE_CHECKING:
    from firkin.agent.records import FileEvent


class GuestFs:
    """Files of one machine, as `user` (root if None). `sync` is the same for threads.

    Raises:
        GuestFileError: from any method, with the guest's errno; ExecTimeout: not done within `timeout_s` seconds;
        AgentError: the agent does not answer.
    """

    def __init__(self, files: fs.GuestFs) -> None:
        self.sync = files

    def as_user(self, user: str) -> GuestFs:
        """The same files, with the rights of NAME, UID, NAME:GROUP or UID:GID."""
        return GuestFs(self.sync.as_user(user))

    def within(self, timeout_s: float) -> GuestFs:
        """The same files, with another limit on how many seconds each call may take."""
        return GuestFs(self.sync.within(timeout_s))

    async def watch(self, path: fs.GuestPath, *, recursive: bool = False) -> Watch:
        """Events of a file or folder from now on, with `recursive` of all folders below it."""
        return Watch(await made(lambda: self.sync.watch(path, recursive=recursive), fs.Watch.close))

    read_bytes = threaded(fs.GuestFs.read_bytes)
    read_text = threaded(fs.GuestFs.read_text)
    write_bytes = threaded(fs.GuestFs.write_bytes)
    write_text = threaded(fs.GuestFs.write_text)
    stat = threaded(fs.GuestFs.stat)
    exists = threaded(fs.GuestFs.exists)
    list = threaded(fs.GuestFs.list)
    mkdir = threaded(fs.GuestFs.mkdir)
    remove = threaded(fs.GuestFs.remove)
    rename = threaded(fs.GuestFs.rename)
    symlink = threaded(fs.GuestFs.symlink)
    chmod = threaded(fs.GuestFs.chmod)
    chown = threaded(fs.GuestFs.chown)


class Watch:
    """Events as they happen: an iterator that ends when what is watched is gone, and a context manager."""

    def __init__(self, watch: fs.Watch) -> None:
        self.sync = watch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[FileEvent]:
        return iterate(lambda: iter(self.sync))

    async def next(self, timeout_s: float | None = None) -> FileEvent | None:
        """The next event; None when there will be none any more.

        Raises:
            TimeoutError: none came within `timeout_s` seconds; the watch goes on.
        """
        try:
            return await in_thread(lambda: self.sync.next(timeout_s))
        except asyncio.CancelledError:
            self.close()  # the thread would wait for an event that nobody takes
            raise

    def close(self) -> None:
        """End the watch."""
        self.sync.close()
