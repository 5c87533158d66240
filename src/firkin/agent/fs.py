"""Files in the guest for programs: small reads and writes, lists, changes, and events as they happen.

Whole trees go faster with `Machine.copy_in` and `copy_out`. Paths are the guest's; a relative one starts at its root.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from typing import Literal

from firkin.agent.process import Process
from firkin.agent.records import FileEvent, FileStat, RecordReader, changes
from firkin.agent.transfer import StartTask, task_error, task_killed
from firkin.errors import AgentError, GuestFileError

TIMEOUT_S = 30.0
MAX_FILE = 256 << 20  # bytes that `read_bytes` takes into memory unless more are allowed
MAX_LIST = 64 << 20  # bytes of records: about half a million files

GuestPath = str | os.PathLike[str]
FileStats = list[FileStat]


class GuestFs:
    """Files of one machine, as `user` (root if None). Safe to use from several threads.

    Raises:
        GuestFileError: from any method, with the guest's errno; ExecTimeout: not done within `timeout_s` seconds;
        AgentError: the agent does not answer.
    """

    def __init__(self, start: StartTask, *, user: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._start = start
        self._user = user
        self._timeout_s = timeout_s

    def as_user(self, user: str) -> GuestFs:
        """The same files, with the rights of NAME, UID, NAME:GROUP or UID:GID."""
        return GuestFs(self._start, user=user, timeout_s=self._timeout_s)

    def within(self, timeout_s: float) -> GuestFs:
        """The same files, with another limit on how many seconds each call may take."""
        return GuestFs(self._start, user=self._user, timeout_s=timeout_s)

    def read_bytes(self, path: GuestPath, *, offset: int = 0, size: int = -1, max_bytes: int = MAX_FILE) -> bytes:
        """A file's content, or `size` bytes of it from `offset` on (fewer at its end).

        Raises:
            GuestFileError: EFBIG: it holds more than `max_bytes`.
        """
        name = absolute(path)
        data = self._run("read", name, str(offset), str(size), about=name, max_output=max_bytes + 1)
        if len(data) > max_bytes:
            raise GuestFileError(
                name, errno.EFBIG, f"more than {max_bytes} bytes", hint="Machine.copy_out, or max_bytes="
            )
        return data

    def read_text(self, path: GuestPath, *, encoding: str = "utf-8", errors: str = "strict") -> str:
        """A file's content as text."""
        return self.read_bytes(path).decode(encoding, errors)

    def write_bytes(
        self,
        path: GuestPath,
        data: bytes,
        *,
        mode: int = 0o644,
        how: Literal["replace", "append", "new"] = "replace",
    ) -> None:
        """Write a file: anew, at its end, or only if there is none yet (`new`). `mode` is for a file that is made."""
        name = absolute(path)
        self._run("write", name, f"{mode:o}", how, about=name, stdin=data)

    def write_text(
        self,
        path: GuestPath,
        text: str,
        *,
        encoding: str = "utf-8",
        mode: int = 0o644,
        how: Literal["replace", "append", "new"] = "replace",
    ) -> None:
        """As `write_bytes`."""
        self.write_bytes(path, text.encode(encoding), mode=mode, how=how)

    def stat(self, path: GuestPath, *, follow: bool = True) -> FileStat:
        """What is known of a file; of the link itself with `follow=False`."""
        name = absolute(path)
        found = _stats(self._run("stat", name, *(["follow"] if follow else []), about=name))
        if len(found) != 1:
            raise AgentError(f"agent: {len(found)} records of {name}")
        return found[0]

    def exists(self, path: GuestPath) -> bool:
        """Whether there is something of that name, at the end of links."""
        try:
            self.stat(path)
        except GuestFileError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        return True

    def list(self, path: GuestPath) -> FileStats:
        """What is in a folder, in no order, without `.` and `..`.

        Raises:
            GuestFileError: EFBIG: more than fits in 64 MiB of records.
        """
        name = absolute(path)
        data = self._run("list", name, about=name, max_output=MAX_LIST + 1)
        if len(data) > MAX_LIST:
            raise GuestFileError(name, errno.EFBIG, "too many files to list")
        return _stats(data)

    def mkdir(self, path: GuestPath, *, mode: int = 0o755, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a folder; with `parents` those above it too, with `exist_ok` it may be there already."""
        name = absolute(path)
        if exist_ok or not parents:
            self._mkdir(name, mode, parents, exist_ok)
            return
        above = os.path.dirname(name.rstrip("/"))  # noqa: PTH120 - a path of the guest's, any bytes
        self._mkdir(above or "/", 0o755, True, True)
        self._mkdir(name, mode, False, False)

    def remove(self, path: GuestPath, *, recursive: bool = False) -> None:
        """Remove a file, a link or an empty folder; with `recursive` a folder with all that is in it."""
        name = absolute(path)
        self._run("remove", name, *(["tree"] if recursive else []), about=name)

    def rename(self, path: GuestPath, target: GuestPath) -> None:
        """Move within one of the guest's file systems; a file at `target` is replaced."""
        name = absolute(path)
        self._run("rename", name, absolute(target), about=name)

    def symlink(self, path: GuestPath, target: GuestPath) -> None:
        """Make a symbolic link at `path` that holds `target`, as `pathlib.Path.symlink_to` does."""
        name = absolute(path)
        self._run("symlink", os.fspath(target), name, about=name)

    def chmod(self, path: GuestPath, mode: int) -> None:
        """Set a file's permissions."""
        name = absolute(path)
        self._run("chmod", name, f"{mode:o}", about=name)

    def chown(self, path: GuestPath, uid: int = -1, gid: int = -1) -> None:
        """Set a file's owner and group, numbers of the guest; -1 leaves one as it is."""
        name = absolute(path)
        self._run("chown", name, str(uid), str(gid), about=name)

    def watch(self, path: GuestPath, *, recursive: bool = False) -> Watch:
        """Events of a file or folder from now on, with `recursive` of all folders below it too."""
        name = absolute(path)
        words = ["watch", name, *(["tree"] if recursive else [])]
        return Watch(self._start(*words, user=self._user), name, timeout_s=self._timeout_s)

    def _mkdir(self, name: str, mode: int, parents: bool, exist_ok: bool) -> None:
        try:
            self._run("mkdir", name, f"{mode:o}", *(["parents"] if parents else []), about=name)
        except GuestFileError as error:
            if error.errno != errno.EEXIST or not exist_ok or not self.stat(name).is_dir:
                raise

    def _run(self, *words: str, about: str, stdin: bytes | None = None, max_output: int = MAX_LIST) -> bytes:
        with self._start(*words, user=self._user, stdin=stdin is not None) as process:
            result = process.result(stdin=stdin or b"", timeout_s=self._timeout_s, max_output=max_output)
            if process.status is None or process.status.signal is not None:
                raise task_killed(about)
        if result.returncode != 0:
            raise task_error(about, result.returncode, result.stderr)
        return result.stdout


class Watch:
    """Events as they happen: an iterator that ends when what is watched is gone, and a context manager. What is not
    read in time is not lost at once: the guest's kernel keeps some thousands, then says LOST."""

    def __init__(self, process: Process, path: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._process = process
        self._path = path
        self._reader = RecordReader()
        self._events: deque[FileEvent] = deque()
        self._began = False
        self._said = bytearray()
        try:
            self._await_beginning(timeout_s)
        except BaseException:
            process.close()
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[FileEvent]:
        while (event := self.next()) is not None:
            yield event

    def next(self, timeout_s: float | None = None) -> FileEvent | None:
        """The next event; None when there will be none any more.

        Raises:
            TimeoutError: none came within `timeout_s` seconds; the watch goes on.
        """
        while not self._events:
            if not self._read(timeout_s):
                return None
        return self._events.popleft()

    def close(self) -> None:
        """End the watch."""
        self._process.close()

    def _await_beginning(self, timeout_s: float) -> None:
        """The agent says when it watches: what happens after that is told."""
        try:
            while not self._began:
                if not self._read(timeout_s):
                    raise AgentError(f"{self._path}: the watch ended before it began")
        except TimeoutError as error:
            raise GuestFileError(self._path, errno.ETIMEDOUT, "the guest does not answer") from error

    def _read(self, timeout_s: float | None) -> bool:
        output = self._process.read(timeout_s)
        if output is None:
            self._check()
            return False
        if output.fd != 1:
            self._said = (self._said + output.data)[:1000]
            return True
        for mask, path in self._reader.events(output.data):
            if mask and not self._began:
                raise AgentError(f"agent: an event of {self._path} before its watch began")
            self._began = True
            self._events.extend(changes(mask, path))
        return True

    def _check(self) -> None:
        status = self._process.status
        if status is not None and status.code:
            raise task_error(self._path, status.code, bytes(self._said))


def absolute(path: GuestPath) -> str:
    """A path of the guest, from its root.

    Raises:
        GuestFileError: it is empty, or has a NUL byte.
    """
    text = os.fspath(path)
    if not text:
        raise GuestFileError("''", errno.ENOENT, "an empty path")
    if "\0" in text:
        raise GuestFileError(repr(text), errno.EINVAL, "a NUL byte in a path")
    return text if text.startswith("/") else "/" + text


def _stats(data: bytes) -> FileStats:
    reader = RecordReader()
    found = list(reader.stats(data))
    reader.finish()
    return found
