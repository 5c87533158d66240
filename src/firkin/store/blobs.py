"""Large files by content: written aside, hashed, renamed into place whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firkin.errors import NoSpace
from firkin.host.files import sha256_file
from firkin.host.lock import try_lock
from firkin.paths import Paths


class Blobs:
    """The folder of blobs and the work area beside it (same filesystem, so a rename is atomic)."""

    def __init__(self, paths: Paths) -> None:
        self._blobs = paths.blobs
        self._work = paths.work

    def path(self, digest: str) -> Path:
        """Where the blob of that sha256 (hexadecimal) lies, or would lie."""
        return self._blobs / digest

    def adopt(self, file: Path, *, mode: int = 0o444) -> str:
        """Move a finished file into the store; answers its sha256. Adopting the same content twice is harmless."""
        digest = sha256_file(file)
        self._blobs.mkdir(parents=True, exist_ok=True)
        file.chmod(mode)
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        file.replace(self.path(digest))
        return digest

    @contextmanager
    def workspace(self, purpose: str) -> Iterator[Path]:
        """A scratch folder for this scope, on the blobs' filesystem, removed afterwards.

        A lock marks it as in use, so that `sweep` can remove what a killed process left.

        Raises:
            NoSpace: the disk filled up while the scope ran.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=self._work))
        lock = try_lock(folder / ".lock")
        try:
            yield folder
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(
                    f"{self._work}: disk full", hint="free some space, or set FIRKIN_HOME elsewhere"
                ) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)

    def sweep(self) -> list[Path]:
        """Remove the workspaces of processes that died; answers what was removed."""
        dead = []
        for folder in self._work.glob("*/"):
            lock = try_lock(folder / ".lock") if (folder / ".lock").exists() else None
            if lock is None:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            dead.append(folder)
        return dead
