"""Reach a vsock port of the guest through the VMM's socket."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from firkin.errors import AgentError
from firkin.host.unix import connect_unix

AGENT_PORT = 1024
RETRY_S = 0.01
MAX_ANSWER = 32  # bytes of the VMM's answer to CONNECT


def dial(uds_path: Path, timeout_s: float, *, port: int = AGENT_PORT) -> tuple[socket.socket, float]:
    """A stream to a vsock port of the guest, and the seconds that are left.

    Raises:
        AgentError: nobody answered in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = max(deadline - time.monotonic(), RETRY_S)
        try:
            return _try(uds_path, port, left), left
        except OSError as error:
            if time.monotonic() + RETRY_S >= deadline:
                raise AgentError(
                    f"{uds_path}: no agent answers: {error}", hint="has the guest booted? its console log says"
                ) from error
        time.sleep(RETRY_S)


def _try(uds_path: Path, port: int, timeout_s: float) -> socket.socket:
    sock = connect_unix(uds_path, timeout_s)
    try:
        _shake_hands(sock, port)
    except BaseException:
        sock.close()
        raise
    return sock


def _shake_hands(sock: socket.socket, port: int) -> None:
    """Ask for a port in the guest, as Firecracker's hybrid vsock has it."""
    sock.sendall(f"CONNECT {port}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        byte = sock.recv(1)  # one at a time: what follows the line belongs to the agent
        if not byte or len(answer) > MAX_ANSWER:
            raise ConnectionRefusedError(f"nothing listens on the guest's port {port}")
        answer += byte
    if not answer.startswith(b"OK "):
        raise ConnectionRefusedError(f"{answer!r} in answer to CONNECT")
