"""The guest's serial port written to a file or named pipe, as PUT /serial asks. Nothing is read, and nothing waits.

What exceeds the limit, or finds a full pipe, is dropped: a guest must not stop because nobody reads its console.
"""

from __future__ import annotations

import os
import socket

from firkin.engine.console import Console
from firkin.engine.limiter import Bucket
from firkin.engine.loop import READ, Loop
from firkin.engine.resources.serial import SerialPort

_CHUNK = 65536
# The serial port hands over single characters. Waking for each would slow a talkative boot by a tenth.
_GATHER_S = 0.001


class SerialOut:
    """Copies from the guest to an open file, which it owns."""

    def __init__(self, loop: Loop, guest: socket.socket, output: int, bucket: Bucket) -> None:
        self._loop = loop
        self._guest = guest
        self._output = output
        self._bucket = bucket
        self.read_bytes = 0
        self.written_bytes = 0
        self.dropped_bytes = 0
        guest.setblocking(False)
        self._watch()

    def drain(self) -> None:
        """Take what the guest said last."""
        while data := self._receive():
            self._write(data)

    def close(self) -> None:
        if self._guest.fileno() >= 0:
            self._loop.forget(self._guest.fileno())
            self._guest.close()
            os.close(self._output)

    def _watch(self) -> None:
        if self._guest.fileno() >= 0:
            self._loop.watch(self._guest.fileno(), READ, self._copy)

    def _copy(self, _events: int) -> None:
        data = self._receive()
        self._loop.forget(self._guest.fileno())
        if data:
            self._write(data)
        if data is not None:
            self._loop.later(_GATHER_S, self._watch)

    def _receive(self) -> bytes | None:
        """What the guest says, nothing where it says nothing now, None where QEMU has hung up."""
        try:
            return self._guest.recv(_CHUNK) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def _write(self, data: bytes) -> None:
        granted = self._bucket.take(len(data))
        try:
            written = os.write(self._output, data[:granted])
        except OSError:
            written = 0  # a full pipe or disk
        self.written_bytes += written
        self.dropped_bytes += len(data) - written


def console_of(loop: Loop, guest: socket.socket, port: SerialPort) -> Console | SerialOut:
    """Who copies what the guest says: to where `port` says, else to our own stdout."""
    output, bucket = port.take_output(), Bucket(port.config.rate_limiter)
    return Console(loop, guest, bucket) if output is None else SerialOut(loop, guest, output, bucket)
