"""How the host learns that a guest is up: the agent calls, nobody polls."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from firkin.agent.frames import FrameReader
from firkin.agent.messages import Hello
from firkin.errors import AgentError, BootTimeout, HostError
from firkin.host.unix import listen_unix

HELLO_PORT = 1023
CALL_LIMIT_S = 2.0  # for a guest that has connected to say its hello
ALIVE_INTERVAL_S = 0.05
MAX_CALL_BYTES = 256


class HelloListener:
    """Listens, from its construction on, where the VMM brings the guest's call to vsock port 1023.

    Make it before the guest starts. `owner` (uid, gid) gets the socket, for a VMM that runs as another user.

    Raises:
        HostError: the socket cannot be made.
    """

    def __init__(self, uds_path: Path, *, owner: tuple[int, int] | None = None) -> None:
        self.path = uds_path.with_name(f"{uds_path.name}_{HELLO_PORT}")
        self._server: socket.socket | None = None
        self._last_fault = ""
        try:
            self._server = listen_unix(self.path)
            if owner is not None:
                os.chown(self.path, *owner)
        except OSError as error:
            self.close()
            raise HostError(f"{self.path}: cannot listen for the guest: {error.strerror or error}") from error

    def __enter__(self) -> HelloListener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)

    def wait(self, timeout_s: float, alive: Callable[[], bool]) -> Hello:
        """The guest's first hello; the listener closes with it. `alive` tells whether the VMM still runs.

        Raises:
            BootTimeout: no hello within `timeout_s` seconds.
            AgentError: the VMM ended first.
        """
        try:
            return self._wait(timeout_s, alive)
        finally:
            self.close()

    def _wait(self, timeout_s: float, alive: Callable[[], bool]) -> Hello:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            hello = self._accept(min(left, ALIVE_INTERVAL_S), deadline)
            if hello is not None:
                return hello
            if not alive():
                raise AgentError("the machine ended before its agent called", hint="its console log says why")
        why = f" (last call: {self._last_fault})" if self._last_fault else ""
        raise BootTimeout(f"the guest's agent did not call within {timeout_s:g} s{why}", hint="look at its console log")

    def _accept(self, wait_s: float, deadline: float) -> Hello | None:
        if self._server is None:
            raise AgentError("hello: the listener is closed")
        poller = select.poll()
        poller.register(self._server, select.POLLIN)
        if not poller.poll(wait_s * 1000):
            return None
        client, _ = self._server.accept()
        with client:
            try:
                return _read_hello(client, min(deadline, time.monotonic() + CALL_LIMIT_S))
            except (AgentError, OSError) as error:
                self._last_fault = str(error)  # any program in the guest can call: the agent's own may follow
                return None


def _read_hello(client: socket.socket, deadline: float) -> Hello:
    reader = FrameReader()
    for _ in range(MAX_CALL_BYTES):
        client.settimeout(max(deadline - time.monotonic(), 0.001))
        data = client.recv(MAX_CALL_BYTES)
        if not data:
            raise AgentError("hung up before its hello")
        for frame in reader.feed(data):
            return Hello.decode(frame)
        if time.monotonic() >= deadline:
            break
    raise AgentError(f"said no hello within {CALL_LIMIT_S:g} s")
