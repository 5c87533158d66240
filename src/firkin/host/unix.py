"""Unix sockets at any path: a socket's name may have 107 bytes, a folder's descriptor stands in for the rest."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for bind(2) and connect(2) that is short enough, good within this scope."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen_unix(path: Path, *, backlog: int = 8) -> socket.socket:
    """A socket that listens at `path`, for its owner alone; a socket that was left there is replaced.

    Raises:
        OSError: the folder is missing, or the name's last part is too long.
    """
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if path.is_socket():
            path.unlink()
        with short_name(path) as name:
            server.bind(name)
        path.chmod(0o600)
        server.listen(backlog)
    except BaseException:
        server.close()
        raise
    return server


def connect_unix(path: Path, timeout_s: float) -> socket.socket:
    """A connection to whoever listens at `path`.

    Raises:
        OSError: nobody does, or not within `timeout_s` seconds.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        client.settimeout(timeout_s)
        with short_name(path) as name:
            client.connect(name)
    except BaseException:
        client.close()
        raise
    return client
