"""The log, line for line in Firecracker's format: local time with nine digits, instance, thread, message."""

from __future__ import annotations

import os
import select
import sys
import time

LEVELS = {"off": 0, "error": 1, "warn": 2, "warning": 2, "info": 3, "debug": 4, "trace": 5}
ERROR, WARN, INFO, DEBUG = 1, 2, 3, 4
_NAMES = {ERROR: "ERROR", WARN: "WARN", INFO: "INFO", DEBUG: "DEBUG"}

# How many lines a guest may cause from one place of the code, and in how many seconds.
BURST = 10
REFILL_S = 5.0

# The threads of Firecracker that its readers know from the log.
MAIN = "main"
API = "fc_api"


class UnknownLevel(ValueError):
    """No log level of that name."""


def parse_level(text: str) -> int:
    """Level by name, without regard to case.

    Raises:
        UnknownLevel: the name is none of Off, Trace, Debug, Info, Warn, Warning, Error.
    """
    try:
        return LEVELS[text.lower()]
    except KeyError:
        raise UnknownLevel(text) from None


class _Limit:
    """One place of the code: what it may still say, and what it could not."""

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._at = time.monotonic()
        self.suppressed = 0

    def take(self) -> bool:
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._at) * BURST / REFILL_S)
        self._at = now
        if self._tokens < 1:
            self.suppressed += 1
            return False
        self._tokens -= 1
        return True


class Journal:
    """Where log lines go. Starts on stdout at level Info.

    `by_guest` marks lines that a guest can cause at will: each place that writes such lines has ten in five seconds.
    Lines that are lost are counted: `missed` could not be written, `rate_limited` were too many.
    """

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.level = INFO
        self.show_level = False
        self.show_origin = False
        self.module: str | None = None
        self.missed = 0
        self.rate_limited = 0
        self._limits: dict[tuple[str, int], _Limit] = {}
        self._fd = 1

    def open(self, path: str) -> None:
        """Send lines to `path` from now on; the file is created if it is missing.

        Raises:
            OSError: it cannot be opened for writing.
        """
        # Read and write, not blocking: a named pipe opens at once, also with no reader yet.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(path, flags, 0o644)
        if self._fd != 1:
            os.close(self._fd)
        self._fd = fd

    def error(self, message: str, *, thread: str = MAIN, by_guest: bool = False) -> None:
        self._write(ERROR, message, thread, by_guest=by_guest)

    def warn(self, message: str, *, thread: str = MAIN, by_guest: bool = False) -> None:
        self._write(WARN, message, thread, by_guest=by_guest)

    def info(self, message: str, *, thread: str = MAIN, by_guest: bool = False) -> None:
        self._write(INFO, message, thread, by_guest=by_guest)

    def debug(self, message: str, *, thread: str = MAIN) -> None:
        self._write(DEBUG, message, thread, by_guest=False)

    def _write(self, level: int, message: str, thread: str, *, by_guest: bool) -> None:
        caller = sys._getframe(2)  # noqa: SLF001 - the only way to the line that logs
        if by_guest and not self._may_speak(caller.f_code.co_filename, caller.f_lineno, thread):
            return
        if level > self.level or not _in_module(self.module, caller.f_globals.get("__name__", "")):
            return
        head = f"{self.instance_id}:{thread}"
        if self.show_level:
            head += f":{_NAMES[level]}"
        if self.show_origin:
            head += f":{source(caller.f_code.co_filename)}:{caller.f_lineno}"
        self._emit(f"{timestamp(time.time_ns())} [{head}] {message}\n".encode(errors="replace"))

    def _may_speak(self, file: str, line: int, thread: str) -> bool:
        limit = self._limits.setdefault((file, line), _Limit())
        if not limit.take():
            self.rate_limited += 1
            return False
        if suppressed := limit.suppressed:
            limit.suppressed = 0
            self.warn(f"{suppressed} messages were suppressed due to rate limiting", thread=thread)
        return True

    def _emit(self, line: bytes) -> None:
        # A reader that has stopped reading must not stop the engine: the line is lost, and counted.
        ready = select.poll()
        ready.register(self._fd, select.POLLOUT)
        try:
            if not ready.poll(0):
                raise BlockingIOError
            os.write(self._fd, line)
        except OSError:
            self.missed += 1


def timestamp(time_ns: int) -> str:
    """Local time with nanoseconds and no zone."""
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(seconds))}.{ns:09d}"


def _in_module(wanted: str | None, name: str) -> bool:
    return wanted is None or name.startswith(wanted)


def source(filename: str) -> str:
    """A file of ours as lines show it: from the package on."""
    return filename[filename.rfind("/firkin/") + 1 :]
