"""Requests in, responses out: which call it is, whether its phase allows it, and how it is told in the log."""

from __future__ import annotations

from firkin.engine import deprecation, routing
from firkin.engine.calls import CALLS
from firkin.engine.faults import NOT_AFTER_START, NOT_BEFORE_START, Fault, TooLarge
from firkin.engine.http import Request, Response
from firkin.engine.journal import API, DEBUG
from firkin.engine.vmm import Vmm
from firkin.errors import EngineError
from firkin.fcapi import codec
from firkin.fcapi.instance import Fault as FaultBody
from firkin.fcapi.routes import Phase, Route

_STATUS = {200: "200 OK", 204: "204 No Content", 400: "400 Bad Request", 413: "413 Payload too large"}


class Controller:
    """The API on one microVM."""

    def __init__(self, vmm: Vmm) -> None:
        self._vmm = vmm
        self._journal = vmm.journal

    def answer(self, request: Request) -> Response:
        """Handle one request; every failure becomes a response."""
        self._journal.info(f"The API server received a {self._describe(request)}.", thread=API)
        try:
            response = self._carry_out(self._understand(request))
        except EngineError as error:
            status = 413 if isinstance(error, TooLarge) else 400
            self._journal.error(f"Received Error. Status code: {_STATUS[status]}. Message: {error}", thread=API)
            return Response(status, codec.encode(FaultBody(fault_message=str(error))))
        text = f"The request was executed successfully. Status code: {_STATUS[response.status]}."
        self._journal.info(text, thread=API)
        return response

    def _understand(self, request: Request) -> routing.Call:
        counts = self._vmm.api_calls
        try:
            call = routing.parse(request)
        except Fault:
            if request.body is not None and (route := routing.find(request)) is not None:
                counts.add_misunderstood(route)
            raise
        counts.add(call.route)
        return call

    def _carry_out(self, call: routing.Call) -> Response:
        self._check_phase(call.route)
        handler = CALLS.get((call.route.method, call.route.path))
        if handler is None:
            raise Fault(f"{call.route.method} {call.route.path} is not supported by this engine.")
        reply = handler(self._vmm, call)
        # Only what succeeded counts, as upstream.
        self._vmm.boot_specific |= call.route.boot_specific
        if (notice := deprecation.notice(call)) is not None:
            self._vmm.api_calls.deprecated += 1
            self._journal.warn(notice, thread=API)
        body = None if reply is None else codec.encode(reply)
        return Response(204 if body is None else 200, body, deprecated=notice is not None)

    def _check_phase(self, route: Route) -> None:
        if self._vmm.started and not route.phase & Phase.RUNTIME:
            raise Fault(NOT_AFTER_START)
        if not self._vmm.started and not route.phase & Phase.PREBOOT:
            raise Fault(NOT_BEFORE_START)

    def _describe(self, request: Request) -> str:
        text = f'{request.method.title()} request on "{request.path}"'
        if request.body is None or request.path == "/mmds":
            return text
        if request.path == "/cpu-config" and self._journal.level < DEBUG:
            return f"{text}. To view the CPU template received by the API, configure log-level to DEBUG"
        return f"{text} with body {_quoted(request.body)}"


def _quoted(body: bytes) -> str:
    return '"' + body.decode(errors="replace") + '"'
