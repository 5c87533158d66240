"""The guest's HTTP requests: what Firecracker's own small server understands. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from firkin.engine.http import JSON, TEXT

_METHODS = (b"GET", b"PUT", b"PATCH", b"DELETE")
_VERSIONS = (b"HTTP/1.0", b"HTTP/1.1")
_SHORTEST_LINE = 14
_NUMBER = re.compile(r"\+?[0-9]+")
MAX_U32 = 2**32 - 1


class BadRequest(ValueError):
    """Not a request that the service understands; `status` and text are the reply."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Headers that mean nothing to HTTP itself keep the spelling of their name."""

    method: str
    path: str  # empty when the URI has none
    version: str
    accept: str
    headers: tuple[tuple[str, str], ...]

    def header(self, *names: str) -> tuple[str, str] | None:
        """Name, as it was spelled, and value of the first header that goes by one of `names` (lower case)."""
        return next(((name, value) for name, value in self.headers if name.lower() in names), None)


def parse(data: bytes) -> Request:
    """Read one request, from its first byte to the empty line after its headers.

    Raises:
        BadRequest: it is none.
    """
    head, end, _ = data.partition(b"\r\n\r\n")
    line, _, headers = head.partition(b"\r\n")
    if b"\r\n" not in data or len(line) < _SHORTEST_LINE:
        raise BadRequest("Invalid request.")
    method, path, version = _request_line(line)
    if not end:
        raise BadRequest("Invalid request.")
    accept, others = _headers(headers)
    return Request(method, path, version, accept, others)


def number(text: str) -> int | None:
    """A 32-bit number as Rust reads it; None if it is none."""
    if not _NUMBER.fullmatch(text) or len(text.lstrip("+0")) > 10 or int(text) > MAX_U32:
        return None
    return int(text)


def _request_line(line: bytes) -> tuple[str, str, str]:
    parts = line.split(b" ", 2)
    if len(parts) < 3:
        raise BadRequest("Invalid request.")
    method, uri, version = parts
    if method not in _METHODS:
        raise BadRequest("Unsupported HTTP method.", 501)
    if not uri:
        raise BadRequest("Empty URI not allowed.")
    try:
        path = _path(uri.decode())
    except UnicodeDecodeError as error:
        raise BadRequest("Cannot parse URI as UTF-8.") from error
    if version not in _VERSIONS:
        raise BadRequest("Unsupported HTTP version.", 501)
    return method.decode(), path, version.decode()


def _path(uri: str) -> str:
    if uri.startswith("http://"):
        _, slash, path = uri.removeprefix("http://").partition("/")
        return slash + path
    return uri if uri.startswith("/") else ""


def _headers(block: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What is accepted, and the headers that are not HTTP's own."""
    try:
        lines = block.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise BadRequest("Invalid request.") from error
    accept, others = TEXT, []
    for line in filter(None, lines):
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(f"Header is incorrectly formatted. Key: {line}")
        match name.strip().lower():
            case "accept" if value.strip() in (JSON, TEXT):
                accept = value.strip()
            case "content-length":
                _check_no_body(name, value)
            case "accept-encoding":
                _check_encoding(value.strip())
            case "accept" | "content-type" | "expect" | "transfer-encoding" | "server":
                pass  # nothing here depends on them, and values that nobody knows are ignored
            case _:
                others.append((name.strip(), value.strip()))
    return accept, tuple(others)


def _check_no_body(name: str, value: str) -> None:
    """A request ends with its headers."""
    length = number(value.strip())
    if length is None:
        raise BadRequest(f"Invalid value. Key:{name}; Value:{value}")
    if length:
        raise BadRequest("Invalid request.")


def _check_encoding(value: str) -> None:
    """Our replies are never encoded, so nobody may forbid just that."""
    if not value:
        raise BadRequest("Invalid request.")
    for encoding in map(str.strip, value.split(",")):
        if encoding == "identity;q=0" or (encoding == "*;q=0" and "identity" not in value):
            raise BadRequest(f"Invalid value. Key:Accept-Encoding; Value:{encoding}")
