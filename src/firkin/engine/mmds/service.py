"""The service itself: a guest's request in, the reply out, by version 1 or 2 of the protocol. No sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from firkin.engine.faults import Fault
from firkin.engine.http import JSON, TEXT, Response
from firkin.engine.mmds import document
from firkin.engine.mmds import request as http
from firkin.engine.mmds.document import NotFound
from firkin.engine.mmds.metrics import Metrics
from firkin.engine.mmds.request import BadRequest, Request
from firkin.engine.mmds.store import Store, UnsupportedType
from firkin.engine.mmds.tokens import MAX_TTL_S, MIN_TTL_S, BadTtl, TokenAuthority
from firkin.fcapi import codec
from firkin.fcapi.mmds import MmdsConfig, MmdsVersion

TOKEN_PATH = "/latest/api/token"
_TOKEN = ("x-metadata-token", "x-aws-ec2-metadata-token")
_TTL = ("x-metadata-token-ttl-seconds", "x-aws-ec2-metadata-token-ttl-seconds")
_NO_TOKEN = (
    "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` header to specify the session token."
)
_BAD_TOKEN = "MMDS token not valid."
_NO_TTL = (
    "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or `X-aws-ec2-metadata-token-ttl-seconds` "
    "header to specify the token's lifetime."
)
_BAD_TTL = (
    f"Invalid time to live value provided for token: {{}}. Please provide a value between {MIN_TTL_S} and {MAX_TTL_S}."
)
_UNSUPPORTED = "Cannot retrieve value. The value has an unsupported type."


class Mmds:
    """One microVM's metadata: its store, its tokens and, once configured, on which interfaces and how it answers."""

    def __init__(self, instance_id: str, limit: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.config: MmdsConfig | None = None
        self.store = Store(limit)
        self.metrics = Metrics()
        self._tokens = TokenAuthority(instance_id, clock_s)

    def put(self, text: msgspec.Raw) -> None:
        """PUT /mmds. Raises: Fault, for what is no JSON or does not fit."""
        self.store.put(_read(text))

    def patch(self, text: msgspec.Raw) -> None:
        """PATCH /mmds. Raises: Fault."""
        self.store.patch(_read(text))

    def describe(self) -> msgspec.Raw:
        """GET /mmds."""
        return msgspec.Raw(self.store.describe())

    def described_config(self) -> MmdsConfig:
        """As GET /vm/config shows it; with data but no configuration the service answers nowhere."""
        return self.config or MmdsConfig(network_interfaces=())

    def answer(self, data: bytes) -> bytes:
        """The reply to one request of the guest, whatever its bytes."""
        try:
            request = http.parse(data)
        except BadRequest as error:
            # Upstream's words for what it cannot parse go out as its server's default kind, JSON or not.
            return Response(error.status, str(error).encode()).encode()
        try:
            return self._answer(request)
        except _Refused as error:
            allow = ("GET", "PUT") if error.status == 405 else ()
            reply = Response(error.status, str(error).encode(), content_type=TEXT, allow=allow, version=request.version)
            return reply.encode()

    def _answer(self, request: Request) -> bytes:
        if not request.path:
            raise _Refused(400, "Invalid URI.")
        if request.method == "GET":
            self._check_token(request)
            return self._get(request)
        if request.method == "PUT":
            return self._issue_token(request)
        raise _Refused(405, "Not allowed HTTP method.")

    def _check_token(self, request: Request) -> None:
        """Version 1 lets everybody pass, and counts who would not under version 2."""
        strict = self.config is not None and self.config.version is MmdsVersion.V2
        header = request.header(*_TOKEN)
        if header is None:
            self.metrics.rx_no_token += 1
            if strict:
                raise _Refused(401, _NO_TOKEN)
        elif not self._tokens.is_valid(header[1]):
            self.metrics.rx_invalid_token += 1
            if strict:
                raise _Refused(401, _BAD_TOKEN)

    def _get(self, request: Request) -> bytes:
        as_text = request.accept == TEXT or (self.config is not None and self.config.imds_compat)
        path = _collapsed(request.path)
        try:
            body = self.store.text(path) if as_text else self.store.json(path)
        except NotFound as error:
            raise _Refused(404, f"Resource not found: {request.path}.") from error
        except UnsupportedType as error:
            raise _Refused(501, _UNSUPPORTED) from error
        return Response(200, body, content_type=TEXT if as_text else JSON, version=request.version).encode()

    def _issue_token(self, request: Request) -> bytes:
        # A proxy that passes requests on for others would hand out our tokens to them.
        if (forwarded := request.header("x-forwarded-for")) is not None:
            raise _Refused(400, f"Invalid header. Reason: Unsupported header name. Key: {forwarded[0]}")
        if _collapsed(request.path) != TOKEN_PATH:
            raise _Refused(404, f"Resource not found: {request.path}.")
        if (header := request.header(*_TTL)) is None:
            raise _Refused(400, _NO_TTL)
        name, value = header
        if (ttl_s := http.number(value)) is None:
            raise _Refused(400, f"Invalid header. Reason: Invalid value. Key:{name}; Value:{value}")
        try:
            token = self._tokens.issue(ttl_s)
        except BadTtl as error:
            raise _Refused(400, _BAD_TTL.format(ttl_s)) from error
        lines = (f"{name}: {ttl_s}",)
        return Response(200, token, content_type=TEXT, headers=lines, version=request.version).encode()


class _Refused(Exception):
    """A reply that is not 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _read(text: msgspec.Raw) -> Any:
    try:
        return document.read(text)
    except codec.Malformed as error:
        raise Fault(f"An error occurred when deserializing the json body of a request: {error}.") from error


def _collapsed(path: str) -> str:
    while "//" in path:
        path = path.replace("//", "/")
    return path
