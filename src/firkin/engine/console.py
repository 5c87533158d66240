"""The guest's first serial port on our stdin and stdout: terminals, pipes, FIFOs and plain files.

QEMU gets a socket instead of the terminal itself: it can then neither push characters into it, nor leave it raw or
non-blocking when it dies.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import stat
from typing import Any

from firkin.engine.limiter import Bucket
from firkin.engine.loop import GONE, READ, WRITE, Loop

_CHUNK = 4096  # what poll(2) promises to fit into a writable pipe without blocking
# The serial port hands over single characters. Waking for each would slow a talkative boot by a tenth.
_GATHER_S = 0.001
_PATIENCE_S = 2.0


class Console:
    """Copies both ways. An end of input does not end the machine.

    A pipe or terminal that is full holds the guest back for `patience_s` seconds. From then on until it is read again,
    what the guest says is lost: a guest must not stop for good because nobody reads its console.
    """

    def __init__(
        self,
        loop: Loop,
        guest: socket.socket,
        bucket: Bucket | None = None,
        *,
        stdin: int = 0,
        stdout: int = 1,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._loop = loop
        self._guest = guest
        self._bucket = bucket or Bucket(None)
        self.read_bytes = 0
        self.written_bytes = 0
        self.dropped_bytes = 0  # beyond the limit
        self._stdin = stdin
        self._given_stdout = stdout
        self._stdout = _unshared(stdout)
        self._to_guest = b""
        self._to_host = b""
        self._gathering = False
        self._guest_gone = False
        self._patience_s = patience_s
        self._passed_on = 0
        self._stuck = False
        guest.setblocking(False)
        self._watch()
        if _may_read(stdin):
            loop.watch(stdin, READ, self._read_stdin)

    def drain(self, timeout_s: float = 1.0) -> None:
        """Pass on what the guest said last; gives up on a reader that takes nothing for `timeout_s` seconds."""
        ready = select.poll()
        ready.register(self._stdout, select.POLLOUT)
        while True:
            self._to_host = self._to_host or self._receive() or b""
            if not self._to_host or not ready.poll(timeout_s * 1000):
                return
            self._write_stdout(WRITE)

    def close(self) -> None:
        """Let go of stdin and stdout; both stay open."""
        for fd in (self._stdin, self._stdout, self._guest.fileno()):
            if fd >= 0:
                self._loop.forget(fd)
        self._guest.close()
        if self._stdout != self._given_stdout:
            os.close(self._stdout)

    def _watch(self) -> None:
        # Back-pressure both ways: nothing is read that the other side has no room for.
        events = (0 if self._to_host or self._gathering else READ) | (WRITE if self._to_guest else 0)
        if self._guest.fileno() >= 0 and not self._guest_gone:
            self._loop.watch(self._guest.fileno(), events, self._serve_guest)

    def _serve_guest(self, events: int) -> None:
        if events & WRITE:
            self._send_guest()
        if events & (READ | GONE) and not self._to_host:
            data = self._receive()
            if data is None:
                self._guest_gone = True
                self._loop.forget(self._guest.fileno())
                return
            self._to_host = data
            self._gathering = True
            self._loop.later(_GATHER_S, self._stop_gathering)
            if data:
                self._pass_on()
        self._watch()

    def _pass_on(self) -> None:
        if self._stdout == self._given_stdout:
            self._loop.watch(self._stdout, WRITE, self._write_stdout)  # it may block: ask first
        else:
            self._write_stdout(WRITE)

    def _stop_gathering(self) -> None:
        self._gathering = False
        self._watch()

    def _receive(self) -> bytes | None:
        """What the guest says and may say, nothing where it says nothing now, None where QEMU has hung up."""
        try:
            said = self._guest.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            return None
        granted = self._bucket.take(len(said))
        self.written_bytes += granted
        self.dropped_bytes += len(said) - granted
        return said[:granted] if said else None

    def _write_stdout(self, events: int) -> None:
        try:
            written = os.write(self._stdout, self._to_host) if events & WRITE else len(self._to_host)
            self._passed_on += written
            self._stuck = False
        except BlockingIOError:
            written = self._hold_back_or_drop()
        except OSError:
            written = len(self._to_host)  # nobody listens any more: the guest must not stop for that
        self._to_host = self._to_host[written:]
        if self._to_host:
            self._loop.watch(self._stdout, WRITE, self._write_stdout)
        else:
            self._loop.forget(self._stdout)
            self._watch()

    def _hold_back_or_drop(self) -> int:
        if self._stuck:
            self.written_bytes -= len(self._to_host)
            return len(self._to_host)
        self._loop.later(self._patience_s, functools.partial(self._lose_patience, self._passed_on))
        return 0

    def _lose_patience(self, passed_on: int) -> None:
        if self._to_host and self._passed_on == passed_on and self._guest.fileno() >= 0:
            self._stuck = True
            self._write_stdout(WRITE)

    def _read_stdin(self, _events: int) -> None:
        try:
            self._to_guest = os.read(self._stdin, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._to_guest = b""
        self._loop.forget(self._stdin)
        if self._to_guest:
            self._send_guest()

    def _send_guest(self) -> None:
        try:
            sent = self._guest.send(self._to_guest)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # QEMU is going; its end is noticed elsewhere
        self.read_bytes += sent
        self._to_guest = self._to_guest[sent:]
        if not self._to_guest:
            self._loop.watch(self._stdin, READ, self._read_stdin)
        self._watch()


class Terminal:
    """stdin's own modes, remembered so that every way out can bring them back."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    def make_raw(self) -> None:
        """Pass every key to the guest; does nothing where stdin is no terminal, or we are in its background."""
        if not _may_read(self._fd) or not os.isatty(self._fd):
            return
        import termios

        self._saved = termios.tcgetattr(self._fd)
        modes = termios.tcgetattr(self._fd)
        # Output processing stays on: our own log lines end in a bare newline.
        modes[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON | termios.BRKINT | termios.ISTRIP)
        modes[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(self._fd, termios.TCSANOW, modes)

    def restore(self) -> None:
        """Bring the modes back; harmless when nothing was changed."""
        if self._saved is None:
            return
        import termios

        # The terminal itself may be gone: that is what SIGHUP says.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        self._saved = None


def _may_read(fd: int) -> bool:
    """Whether reading is possible at all and would not stop us, as it does a background job on its terminal."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True  # no terminal, or not the one that controls us


def _unshared(fd: int) -> int:
    """Our own opening of a terminal or pipe, not blocking: the flag on `fd` itself is shared with other processes."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        pass
    return fd
