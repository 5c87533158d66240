"""Firecracker's dialect of HTTP/1.1: bytes in, requests out; responses to bytes. No I/O.

Bodies come by Content-Length only, lines end at 1024 bytes, and a reply has no reason phrase.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_LINE = 1024
METHODS = ("GET", "PUT", "PATCH", "DELETE")
VERSIONS = ("HTTP/1.0", "HTTP/1.1")


class Request(NamedTuple):
    """One whole request. `body` is None where no bytes were announced."""

    method: str
    path: str
    body: bytes | None = None


class Continue(NamedTuple):
    """The client waits for leave to send its body."""


class BadRequest(Exception):
    """The bytes are no request. Everything in flight on the connection is dropped."""


class Response(NamedTuple):
    """One reply. `deprecated` marks a call that used a field which is going away."""

    status: int
    body: bytes | None = None
    deprecated: bool = False

    def encode(self) -> bytes:
        head = f"HTTP/1.1 {self.status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        if self.deprecated:
            head += "Deprecation: true\r\n"
        if self.body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n"
        return f"{head}\r\n".encode() + (self.body or b"")


CONTINUE = Response(100).encode()
SERVER_FULL = (
    b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
    b'{ "error": "Too many open connections" }'
)


def transport_error(reason: str) -> Response:
    """The reply to bytes that are no request; not the API's own shape of error."""
    return Response(400, f'{{ "error": "{reason}\nAll previous unanswered requests will be dropped." }}'.encode())


class Parser:
    """One connection's incoming side."""

    def __init__(self, payload_limit: int) -> None:
        self._limit = payload_limit
        self._buffer = bytearray()
        self._skip = 0
        self._start()

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
        self._line: tuple[str, str] | None = None
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
                    return Continue()
        return self._take_request()

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, MAX_LINE)
        if end < 0:
            if len(self._buffer) >= MAX_LINE:
                raise BadRequest("Invalid request.")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _take_request(self) -> Request | None:
        if len(self._buffer) < self._length:
            return None
        assert self._line is not None
        body = bytes(self._buffer[: self._length]) if self._length else None
        request = Request(*self._line, body)
        del self._buffer[: self._length]
        self._start()
        return request

    def _header(self, line: bytes) -> None:
        name, colon, value = line.decode(errors="replace").partition(":")
        if not colon:
            raise BadRequest(f"Invalid header. Reason: Header is incorrectly formatted. Key: {name}")
        match name.strip().lower():
            case "content-length":
                self._length = self._content_length(name.strip(), value.strip())
            case "expect":
                self._expects = value.strip().lower() == "100-continue"

    def _content_length(self, name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and int(value) < 2**32):
            raise BadRequest(f"Invalid header. Reason: Invalid value. Key:{name}; Value:{value}")
        return int(value)

    def _check_size(self) -> None:
        if self._length <= self._limit:
            return
        # The body is on its way all the same: read as the next request, it would earn a second error.
        self._skip = 0 if self._expects else max(0, self._length - len(self._buffer))
        raise BadRequest(
            f"Request payload with size {self._length} is larger than the limit of {self._limit} allowed by server."
        )


def _request_line(line: bytes) -> tuple[str, str]:
    method, _, rest = line.decode(errors="replace").partition(" ")
    path, _, version = rest.partition(" ")
    if method not in METHODS:
        raise BadRequest("Invalid HTTP Method: Unsupported HTTP method.")
    if not path:
        raise BadRequest("Invalid URI: Empty URI not allowed.")
    if version not in VERSIONS:
        raise BadRequest("Invalid HTTP Version: Unsupported HTTP version.")
    return method, path
