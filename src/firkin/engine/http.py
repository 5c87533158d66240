"""Firecracker's dialect of HTTP/1.1: bytes in, requests out; responses to bytes. No I/O.

Bodies come by Content-Length only, lines end at 1024 bytes, and a reply has no reason phrase.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_LINE = 1024  # its CRLF included
METHODS = ("GET", "PUT", "PATCH", "DELETE")
HTTP_10, HTTP_11 = VERSIONS = ("HTTP/1.0", "HTTP/1.1")
JSON, TEXT = "application/json", "text/plain"

_MAX_LENGTH = 2**32 - 1
_WITHOUT_LENGTH = (100, 204)
_CHUNK = 65536
_SCHEME = "http://"


class Request(NamedTuple):
    """One whole request. `body` is None where no bytes were announced."""

    method: str
    path: str
    body: bytes | None = None
    version: str = HTTP_11


class Continue(NamedTuple):
    """The client waits for leave to send its body."""

    version: str = HTTP_11


class BadRequest(Exception):
    """The bytes are no request. Everything in flight on the connection is dropped."""


class Response(NamedTuple):
    """One reply. `deprecated` marks a call that used a field which is going away; `headers` are whole lines."""

    status: int
    body: bytes | None = None
    deprecated: bool = False
    content_type: str = JSON
    allow: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    version: str = HTTP_11

    def encode(self) -> bytes:
        lines = [f"{self.version} {self.status} ", "Server: Firecracker API", "Connection: keep-alive"]
        if self.allow:
            lines.append(f"Allow: {', '.join(self.allow)}")
        if self.deprecated:
            lines.append("Deprecation: true")
        lines += self.headers
        if self.body is not None or self.status not in _WITHOUT_LENGTH:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body or b'')}"]
        return "\r\n".join([*lines, "", ""]).encode() + (self.body or b"")


SERVER_FULL = (
    b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
    b'{ "error": "Too many open connections" }'
)


def transport_error(reason: str) -> Response:
    """The reply to bytes that are no request; not the API's own shape of error, nor quite JSON."""
    return Response(400, f'{{ "error": "{reason}\nAll previous unanswered requests will be dropped." }}'.encode())


class Parser:
    """One connection's incoming side."""

    def __init__(self, payload_limit: int) -> None:
        self._limit = payload_limit
        self._buffer = bytearray()
        self._skip = 0
        self._start()

    @property
    def room(self) -> int:
        """How many bytes to read next, at least one. Who keeps to it never has more than a body or a line buffered."""
        if self._skip:
            return min(self._skip, _CHUNK)
        if self._in_body:
            return min(self._length - len(self._buffer), _CHUNK)
        return MAX_LINE - len(self._buffer)

    def feed(self, data: bytes) -> list[Request | Continue]:
        """Take what the socket gave; return every request that is now complete, in order.

        Raises:
            BadRequest: the buffer is emptied, and the parser ready for the next request.
        """
        self._buffer += data
        self._drop_refused_body()
        found: list[Request | Continue] = []
        try:
            while (item := self._next()) is not None:
                found.append(item)
        except BadRequest:
            self._buffer.clear()
            self._start()
            raise
        return found

    def _start(self) -> None:
        self._line: tuple[str, str, str] | None = None
        self._length = 0
        self._expects = False
        self._in_body = False

    def _drop_refused_body(self) -> None:
        dropped = min(self._skip, len(self._buffer))
        del self._buffer[:dropped]
        self._skip -= dropped

    def _next(self) -> Request | Continue | None:
        while not self._in_body:
            line = self._take_line()
            if line is None:
                return None
            if self._line is None:
                self._line = _request_line(line)
            elif line:
                self._header(line)
            else:
                self._check_size()
                self._in_body = True
                if self._expects and self._length:
                    return Continue(self._line[2])
        return self._take_request()

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, MAX_LINE)
        if end < 0:
            if len(self._buffer) >= MAX_LINE:
                raise self._too_long()
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _too_long(self) -> BadRequest:
        if self._line is None:
            return BadRequest("Invalid request.")
        shown = self._buffer[:MAX_LINE].decode(errors="replace")
        return BadRequest(f"Invalid header. Reason: Invalid content length. Header: {shown}")

    def _take_request(self) -> Request | None:
        if len(self._buffer) < self._length:
            return None
        assert self._line is not None
        method, path, version = self._line
        body = bytes(self._buffer[: self._length]) if self._length else None
        request = Request(method, path, body, version)
        del self._buffer[: self._length]
        self._start()
        return request

    def _header(self, line: bytes) -> None:
        name, value = _split_header(line)
        match name.strip().lower():
            case "content-length":
                self._length = _content_length(name, value)
            case "expect" if value.strip() == "100-continue":
                self._expects = True
            case "accept-encoding":
                _check_encodings(value.strip())

    def _check_size(self) -> None:
        if self._length <= self._limit:
            return
        # The body is on its way all the same: read as the next request, it would earn a second error.
        self._skip = 0 if self._expects else max(0, self._length - len(self._buffer))
        raise BadRequest(
            f"Request payload with size {self._length} is larger than the limit of {self._limit} allowed by server."
        )


def _request_line(line: bytes) -> tuple[str, str, str]:
    parts = line.split(b" ", 2)
    if len(parts) < 3:
        raise BadRequest("Invalid request.")
    method, path, version = parts
    if method.decode(errors="replace") not in METHODS:
        raise BadRequest("Invalid HTTP Method: Unsupported HTTP method.")
    if not path:
        raise BadRequest("Invalid URI: Empty URI not allowed.")
    try:
        uri = path.decode()
    except UnicodeDecodeError:
        raise BadRequest("Invalid URI: Cannot parse URI as UTF-8.") from None
    if version.decode(errors="replace") not in VERSIONS:
        raise BadRequest("Invalid HTTP Version: Unsupported HTTP version.")
    return method.decode(), _absolute_path(uri), version.decode()


def _absolute_path(uri: str) -> str:
    """The path of `http://host/path` or `/path`; empty where there is none."""
    if uri.startswith(_SCHEME):
        slash = uri.find("/", len(_SCHEME))
        return uri[slash:] if slash >= 0 else ""
    return uri if uri.startswith("/") else ""


def _split_header(line: bytes) -> tuple[str, str]:
    try:
        name, colon, value = line.decode().partition(":")
    except UnicodeDecodeError as error:
        reason = f"Header contains invalid characters. Key: {_utf8_error(error)}"
        raise BadRequest(f"Invalid header. Reason: {reason}") from None
    if not colon:
        raise BadRequest(f"Invalid header. Reason: Header is incorrectly formatted. Key: {name}")
    return name, value


def _utf8_error(error: UnicodeDecodeError) -> str:
    if error.end == len(error.object) and "unexpected end" in error.reason:
        return f"incomplete utf-8 byte sequence from index {error.start}"
    return f"invalid utf-8 sequence of {error.end - error.start} bytes from index {error.start}"


def _content_length(name: str, value: str) -> int:
    digits = value.strip().removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and int(digits) <= _MAX_LENGTH):
        raise _invalid_value(name, value)
    return int(digits)


def _check_encodings(text: str) -> None:
    """Refuse a client that does not take bodies as they are, which is all that we send."""
    if not text:
        raise BadRequest("Invalid request.")
    for encoding in text.split(","):
        refused = encoding.strip()
        if refused == "identity;q=0" or (refused == "*;q=0" and "identity" not in text):
            raise _invalid_value("Accept-Encoding", encoding)


def _invalid_value(name: str, value: str) -> BadRequest:
    return BadRequest(f"Invalid header. Reason: Invalid value. Key:{name}; Value:{value}")
