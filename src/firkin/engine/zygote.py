"""The zygote: a process with every module of the engine in it, of which engines are forked in a few milliseconds.

One datagram asks for one engine: JSON as in `Request`, and six descriptors: a socket for the answer, the working
directory, the network namespace, stdin, stdout, stderr. The answer is `{"pid": N}` by the engine itself, which begins
at `go` and never was if that does not come, or `{"refused": why}`. So whoever dies in between, there is one engine or
none, and who asked knows which. A datagram with one descriptor brings a twin (see twin), which the engines inherit.

Who starts a zygote hands it a locked file: while it holds that, nobody starts another. It goes when nobody has asked
for a while, when its socket was taken away, and when what it has loaded is no longer what is installed.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

import firkin.engine
from firkin.engine import preload
from firkin.engine.newborn import COMMAND, Order, Refused, become, refuse
from firkin.engine.twin.control import Control
from firkin.engine.twin.nest import NEST, Offer, Twin
from firkin.host.unix import short_name

MAX_REQUEST = 1 << 16
CHECK_S = 2.0  # how long it may take to notice that it is time to go
_DESCRIPTORS = 6
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
# What the engine, or the library for it, imports only at its first use.
_LATE = ("ctypes", "encodings.idna", "threading", "traceback")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a datagram says."""

    argv: list[str]
    environ: dict[str, str]


class Letter(NamedTuple):
    """A datagram as it came, and who sent it by the kernel's word."""

    text: bytes
    whole: bool
    pid: int
    uid: int
    descriptors: Sequence[int]


class Zygote:
    """Serves from the moment it is made."""

    def __init__(self, path: Path, lock: int, installed: Installed) -> None:
        self._path = path
        self._lock = lock
        self._installed = installed
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        path.unlink(missing_ok=True)  # we hold the lock: whoever left it was killed
        umask = os.umask(0o177)
        with short_name(path) as name:
            self._socket.bind(name)
        os.umask(umask)
        self._inode = path.stat().st_ino

    def serve(self, idle_s: float) -> list[str] | None:
        """Fork engines. Returns in each of them with its arguments, and here with None when it is time to go."""
        self._socket.settimeout(min(CHECK_S, idle_s))
        asked = time.monotonic()
        while time.monotonic() - asked < idle_s:
            letter = self._receive()
            NEST.sort_out()
            if not self._is_current():
                self.close()  # first, so that who is refused may start the next
                self._answer(letter, "another version is installed")
                return None
            if letter is not None:
                if _is_twin(letter):
                    asked = time.monotonic()
                elif (arguments := self._answer(letter)) is not None:
                    return arguments
                asked = time.monotonic()
        return None

    def close(self) -> None:
        """Take the socket away, unless it is another's by now, and let others start."""
        if self._lock < 0:
            return
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        os.close(self._lock)
        self._lock = -1

    def _is_current(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode and self._installed.is_current()
        except FileNotFoundError:
            return False

    def _receive(self) -> Letter | None:
        room = socket.CMSG_SPACE(_DESCRIPTORS * 4) + socket.CMSG_SPACE(_CREDENTIALS.size)
        try:
            text, parts, flags, _ = self._socket.recvmsg(MAX_REQUEST, room, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            return None
        descriptors: list[int] = []
        pid, uid = 0, -1
        for _level, kind, data in parts:
            if kind == socket.SCM_RIGHTS:
                descriptors += struct.unpack(f"{len(data) // 4}i", data)
            elif kind == socket.SCM_CREDENTIALS:
                pid, uid, _gid = _CREDENTIALS.unpack(data)
        return Letter(text, not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), pid, uid, descriptors)

    def _answer(self, letter: Letter | None, refusal: str = "") -> list[str] | None:
        """The engine's arguments in the engine; None here."""
        if letter is None or not letter.descriptors:
            return None  # nowhere to say anything
        try:
            answer = socket.socket(fileno=letter.descriptors[0])
        except OSError:  # no socket
            _close(letter.descriptors)
            return None
        with answer:
            try:
                order = _read(letter, answer, refusal)
                if _fork_away():
                    self._socket.close()
                    return become(order)
            except (Refused, OSError) as error:
                refuse(answer, str(error))
            _close(letter.descriptors[1:])
        return None


class Installed:
    """The files that this process was loaded from, and the folders in which Python looks for others first."""

    def __init__(self) -> None:
        files = [getattr(module, "__file__", None) for module in sys.modules.values()]
        paths = {path for path in (*files, *sys.path, sys.executable) if path and os.path.exists(path)}  # noqa: PTH110
        self._stamps = {path: _stamp(path) for path in paths}

    def newest_ns(self) -> int:
        """When the last of them came."""
        return max(changed for changed, _size, _inode in self._stamps.values())

    def is_current(self) -> bool:
        """Raises: FileNotFoundError, if one is not there any more."""
        return all(_stamp(path) == stamp for path, stamp in self._stamps.items())


def _stamp(path: str) -> tuple[int, int, int]:
    found = os.stat(path)  # noqa: PTH116 - hundreds of them at each request
    return found.st_ctime_ns, found.st_size, found.st_ino


def _is_twin(letter: Letter) -> bool:
    """Whether this brings a twin, which is kept then."""
    if len(letter.descriptors) != 1 or letter.uid != os.geteuid() or not letter.whole:
        return False
    try:
        offer = msgspec.json.decode(letter.text, type=Offer)
        NEST.add(Twin(offer, Control(socket.socket(fileno=letter.descriptors[0]))))
    except (msgspec.DecodeError, OSError):
        return False
    return True


def _read(letter: Letter, answer: socket.socket, refusal: str) -> Order:
    if refusal:
        raise Refused(refusal)
    if letter.uid != os.geteuid():
        raise Refused("another user's request")
    if not letter.whole or len(letter.descriptors) != _DESCRIPTORS:
        raise Refused("the request is too long, or not all of it came")
    try:
        request = msgspec.json.decode(letter.text, type=Request)
    except msgspec.DecodeError as error:
        raise Refused(str(error)) from error
    if request.argv[: len(COMMAND)] != COMMAND:
        raise Refused("another program's command line")
    answer.setblocking(True)
    _, folder, netns, *streams = letter.descriptors
    return Order(
        asker=letter.pid,
        argv=request.argv,
        environ=request.environ,
        answer=answer,
        folder=folder,
        netns=netns,
        streams=streams,
    )


def _fork_away() -> bool:
    """Whether this is the new process, which is nobody's child: its parent has ended. Raises: OSError."""
    parent = os.fork()
    if parent == 0:
        try:
            if os.fork() == 0:
                return True
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(parent, 0)[1] != 0:
        raise Refused("cannot fork")
    return False


def _close(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _warm_up() -> Installed:
    """Import and find out whatever an engine may need, and keep the garbage collector from ever touching it."""
    for module in pkgutil.walk_packages(firkin.engine.__path__, "firkin.engine."):
        importlib.import_module(module.name)
    for name in _LATE:
        importlib.import_module(name)
    preload.for_load()
    gc.collect()
    gc.freeze()
    return Installed()


def main() -> int:
    """Serve with the options that the vmm room's zygote gives; the exit code, of an engine too."""
    began_ns = time.time_ns()
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    os.set_inheritable(lock := int(options["--lock"]), False)
    installed = _warm_up()
    if installed.newest_ns() > began_ns:
        return 0  # part of it may be of one version and part of another
    zygote = Zygote(Path(options["--serve"]), lock, installed)
    arguments = zygote.serve(float(options["--idle"]))
    if arguments is None:
        zygote.close()
        return 0
    from firkin.engine.__main__ import main as engine

    return engine(arguments)


if __name__ == "__main__":
    sys.exit(main())
