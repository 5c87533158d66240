"""What a host program says first on the unix socket: `CONNECT <port>\\n`. Pure parsing."""

from __future__ import annotations

MAX_SIZE = 32
MAX_PORT = 0xFFFFFFFF


class BadGreeting(ValueError):
    """Not a greeting, and no more bytes can make it one."""


def parse(data: bytes) -> tuple[int, int] | None:
    """The guest port and the greeting's length; None while its end is missing. Bytes after it are the stream's own.

    Raises:
        BadGreeting: another word, no port, a port above 2**32 - 1, or no end within 32 bytes.
    """
    line, newline, _ = data[:MAX_SIZE].partition(b"\n")
    if not newline:
        if len(data) >= MAX_SIZE:
            raise BadGreeting(f"no newline in the first {MAX_SIZE} bytes")
        return None
    words = line.split()
    if len(words) < 2 or words[0].lower() != b"connect":
        raise BadGreeting(f"{line!r}: expected CONNECT and a port")
    return _port(words[1]), len(line) + 1


def _port(word: bytes) -> int:
    if not word.isdigit() or int(word) > MAX_PORT:
        raise BadGreeting(f"{word!r}: not a port")
    return int(word)
