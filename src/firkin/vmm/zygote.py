"""Ask the zygote for an engine, and start a zygote for the next. Whatever it does, asking takes a second or two."""

from __future__ import annotations

import binascii
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from firkin.errors import HostError
from firkin.host import habitat, process
from firkin.host.lock import try_lock
from firkin.host.process import ProcessRef

PATIENCE_S = 1.0
# Engines show their own command line in the place of the zygote's.
_ROOM = " " * 8192


class Answer(msgspec.Struct, frozen=True):
    """What an engine that is ready to begin says, or a zygote that makes none."""

    pid: int = 0
    refused: str = ""


class Zygote:
    """The warm process of this user, home and habitat, whether it runs or not. A lock says whether one does."""

    def __init__(self, folder: Path, idle_s: int) -> None:
        self.folder = folder
        self.idle_s = idle_s

    @property
    def socket(self) -> Path:
        """Processes with other limits or other rights have another zygote."""
        return self.folder / f"{self._key()}.sock"

    @property
    def lock(self) -> Path:
        return self.folder / f"{self._key()}.lock"

    def _key(self) -> str:
        return f"{binascii.crc32(habitat.of(os.getpid()) + os.fsencode(sys.executable)):08x}"

    def engine(self, argv: Sequence[str], environ: Mapping[str, str], descriptors: Sequence[int]) -> ProcessRef | None:
        """An engine that works in `descriptors`: folder, network namespace, stdin, stdout, stderr.

        None if there will be none; then nothing has happened.
        """
        try:
            request = msgspec.json.encode({"argv": argv, "environ": environ})
            return self._ask(request, descriptors)
        except TimeoutError:
            with suppress(HostError):  # not even SIGKILL ends it now; some time it will
                self.end()  # it hangs, and would cost the next one a second too
        except (OSError, UnicodeEncodeError, msgspec.DecodeError):
            return None  # there is none, it has just ended, or it cannot be told this
        return None

    def _ask(self, request: bytes, descriptors: Sequence[int]) -> ProcessRef | None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs, _door(self.socket) as door:
                socket.send_fds(door, [request], [theirs.fileno(), *descriptors])
            ours.settimeout(PATIENCE_S)
            answer = msgspec.json.decode(ours.recv(4096), type=Answer)
            engine = ProcessRef.of(answer.pid) if answer.pid else None
            if engine is not None:
                ours.send(b"go", socket.MSG_NOSIGNAL)  # an engine that cannot be told has ended
            return engine

    def start(self, environ: Mapping[str, str]) -> None:
        """Have one at hand for the next engine, if we can; nobody waits for it. If one runs, it stays."""
        with suppress(OSError):  # a full disk, say: engines start without it
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = try_lock(self.lock)
            if lock is None:
                return
            try:
                self._start(environ, lock)
            finally:
                os.close(lock)

    def _start(self, environ: Mapping[str, str], lock: int) -> None:
        argv = [
            sys.executable, "-I", "-m", "firkin.engine.zygote",
            "--serve", str(self.socket), "--lock", str(lock), "--idle", str(self.idle_s), _ROOM,
        ]  # fmt: skip
        with self.socket.with_suffix(".log").open("wb") as log:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock,), cwd="/", env=environ,
                start_new_session=True,
            )  # fmt: skip
        process.let_go(child)

    def end(self) -> None:
        """Kill it, if it runs; its engines go on."""
        for ref in process.with_argument("--serve", str(self.socket)):
            process.kill(ref)
        self.socket.unlink(missing_ok=True)
        process.reap()


@contextmanager
def _door(path: Path) -> Iterator[socket.socket]:
    """A connection to a zygote in a folder of our own: one in another's would get our descriptors.

    Raises:
        OSError: there is none, or the folder is not ours alone.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{path.parent} is not ours alone")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.settimeout(PATIENCE_S)
            door.connect(f"/proc/self/fd/{folder}/{path.name}")
            yield door
    finally:
        os.close(folder)
