"""Our side of QMP over an inherited socket: one command at a time, events kept for whoever asks."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import msgspec

from firkin.errors import EngineError

Message = dict[str, Any]
TIMEOUT_S = 30.0


class QmpError(EngineError):
    """QEMU refused a command; the text is its own."""


class QmpClosed(EngineError):
    """QEMU hung up: it is about to be gone."""


class QmpTimeout(EngineError):
    """QEMU did not answer in time."""


class Qmp:
    """A monitor in control mode. `on_event` hears every event, in order."""

    def __init__(self, monitor: socket.socket, on_event: Callable[[Message], None]) -> None:
        self._monitor = monitor
        self._on_event = on_event
        self._buffer = b""
        self.version = ""  # known once negotiated
        monitor.setblocking(False)

    def fileno(self) -> int:
        return self._monitor.fileno()

    def close(self) -> None:
        self._monitor.close()

    def negotiate(self, *, timeout_s: float = TIMEOUT_S) -> None:
        """Wait for QEMU's greeting and leave negotiation mode.

        Raises:
            QmpClosed: QEMU ended before it was ready.
            QmpTimeout: it said nothing for `timeout_s` seconds.
        """
        greeting = self._await(lambda message: "QMP" in message, time.monotonic() + timeout_s, "its greeting")
        self.version = _version(greeting)
        self.execute("qmp_capabilities", timeout_s=timeout_s)

    def execute(self, command: str, *, timeout_s: float = TIMEOUT_S, fd: int | None = None, **arguments: object) -> Any:
        """Run a command, which may come with a descriptor, and wait for what it returns.

        Raises:
            QmpError, QmpClosed, QmpTimeout: it refused, it died, or it took longer than `timeout_s` seconds.
        """
        message: Message = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._send(msgspec.json.encode(message), fd)
        except OSError as error:
            raise QmpClosed(f"QEMU hung up before {command}") from error
        reply = self._await(lambda m: "return" in m or "error" in m, time.monotonic() + timeout_s, command)
        if "error" in reply:
            raise QmpError(f"{command}: {reply['error']['desc']}")
        return reply["return"]

    def pump(self) -> None:
        """Take what has arrived, without waiting.

        Raises:
            QmpClosed: the other side is gone.
        """
        for message in self._receive():
            self._on_event(message)

    def _send(self, data: bytes, fd: int | None) -> None:
        # By hand: socket.send_fds imports a module.
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", fd))]
        sent = self._monitor.sendmsg([data], rights)
        self._monitor.sendall(data[sent:])

    def _await(self, wanted: Callable[[Message], bool], deadline: float, what: str) -> Message:
        ready = select.poll()
        ready.register(self._monitor, select.POLLIN)
        while ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
            found = None
            for message in self._receive():
                if found is None and wanted(message):
                    found = message
                else:
                    self._on_event(message)
            if found is not None:
                return found
        raise QmpTimeout(f"QEMU did not answer {what} in time")

    def _receive(self) -> list[Message]:
        try:
            data = self._monitor.recv(65536)
        except BlockingIOError:
            return []
        except OSError as error:
            raise QmpClosed("QEMU hung up") from error
        if not data:
            raise QmpClosed("QEMU hung up")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [msgspec.json.decode(line) for line in lines if line.strip()]


def _version(greeting: Message) -> str:
    """`7.2.22 (Debian 1:7.2+dfsg-7)`: the package matters, as distributions patch devices."""
    try:
        version = greeting["QMP"]["version"]
        number, package = version["qemu"], version.get("package") or ""
        return "{major}.{minor}.{micro} {package}".format(**number, package=package).strip()
    except (KeyError, TypeError):
        return ""
