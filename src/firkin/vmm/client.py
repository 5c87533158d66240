"""Firecracker's API over its unix socket: typed calls, faults as errors."""

from __future__ import annotations

import http.client
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from firkin.errors import ApiFault, EngineError
from firkin.fcapi.instance import Fault, InstanceInfo
from firkin.host.unix import connect_unix
from firkin.vmm.boot import Call

CALL_TIMEOUT_S = 30.0


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over one unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path, self._timeout_s = path, timeout_s

    def connect(self) -> None:
        self.sock = connect_unix(self._path, self._timeout_s)


class ApiClient:
    """One connection to a VMM's API socket.

    Raises, from every call:
        ApiFault: the VMM answered with a fault; the message is its own.
        EngineError: it did not answer.
    """

    def __init__(self, path: Path, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._path = path
        self._connection = _UnixConnection(path, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def is_served(self) -> bool:
        """Connect; whether somebody listens. The file is there from bind(2) on, but only listen(2) opens the door."""
        if not self._path.exists():
            return False  # by far the quickest way to ask
        try:
            self._connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def call(self, call: Call) -> bytes:
        """Make one call; answers the body of the reply, empty for 204."""
        name = f"{call.method} {call.path}"
        body = None if call.body is None else msgspec.json.encode(call.body)
        try:
            self._connection.request(call.method, call.path, body, {"Content-Type": "application/json"} if body else {})
            reply = self._connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"{name}: no answer from the VMM: {error}", hint="firkin logs --engine NAME") from error
        if reply.status >= 400:
            raise ApiFault(name, reply.status, _fault_message(content))
        return content

    def info(self) -> InstanceInfo:
        """GET /: who the VMM says it is."""
        return msgspec.json.decode(self.call(Call("GET", "/", None)), type=InstanceInfo)


def _fault_message(content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=Fault).fault_message
    except msgspec.DecodeError:
        return content.decode(errors="replace").strip()
