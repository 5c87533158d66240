"""From a request to a call of the API: which route, which resource id, which typed body. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from firkin.engine.faults import BAD_ID, BODY_IN_GET, EMPTY_BODY, EMPTY_ID, ID_MISMATCH, Fault
from firkin.engine.http import Request
from firkin.fcapi import codec
from firkin.fcapi.drives import Drive, DrivePatch
from firkin.fcapi.network import NetworkInterface, NetworkInterfacePatch
from firkin.fcapi.pmem import Pmem, PmemPatch
from firkin.fcapi.routes import ID, ROUTES, Route

# Resources with parts of their own, whose names upstream checks; elsewhere it ignores what follows in a path.
_WITH_PARTS = {("GET", "balloon"), ("PATCH", "balloon"), ("PUT", "mmds")}


class Call(NamedTuple):
    """A request that makes sense. `body` is of the route's type."""

    route: Route
    body: Any = None
    resource_id: str = ""


def find(request: Request) -> Route | None:
    """The route of a request, whether or not it makes sense otherwise."""
    return _match(request.method, _tokens(request))


def parse(request: Request) -> Call:
    """Understand a request.

    Raises:
        Fault: in the words of Firecracker's own parser.
    """
    if request.method == "GET" and request.body is not None:
        raise Fault(BODY_IN_GET)
    tokens = _tokens(request)
    route = _match(request.method, tokens)
    if request.body is None and request.method in EMPTY_BODY and (route is None or _needs_body(route)):
        raise Fault(EMPTY_BODY[request.method])
    if route is None or (request.method == "DELETE" and request.body is not None):
        raise Fault(_no_route(request.method, tokens))
    resource_id = _checked_id(tokens) if route.path.endswith(ID) else ""
    body = None if request.body is None else _decode(request.body, route)
    _check_same_id(resource_id, body)
    return Call(route, body, resource_id)


def _tokens(request: Request) -> Sequence[str]:
    return request.path.lstrip("/").removesuffix("/").split("/")


def _match(method: str, tokens: Sequence[str]) -> Route | None:
    """The route whose fixed tokens come first in the path; of several the longest."""
    found = [route for route in ROUTES if route.method == method and _covers(route, tokens)]
    return max(found, key=lambda route: len(_fixed(route)), default=None)


def _covers(route: Route, tokens: Sequence[str]) -> bool:
    fixed = _fixed(route)
    if fixed != tuple(tokens[: len(fixed)]):
        return False
    return len(tokens) == len(fixed) or (route.method, tokens[0]) not in _WITH_PARTS


def _fixed(route: Route) -> tuple[str, ...]:
    return tuple(token for token in route.path.lstrip("/").split("/") if token != ID)


def _needs_body(route: Route) -> bool:
    return route.body is not None and not route.body_optional


def _no_route(method: str, tokens: Sequence[str]) -> str:
    if (method, tokens[0]) in _WITH_PARTS and len(tokens) > 1:
        return f"Unrecognized {method} request path `{tokens[1]}`."
    if (method, *tokens) == ("PUT", "snapshot"):
        return "Missing snapshot operation type."
    # Only the first token is shown, but for snapshots.
    shown = "/" + "/".join(tokens[:2]) if tokens[0] == "snapshot" and method == "PUT" else tokens[0]
    return f"Invalid request method and/or path: {method} {shown}."


def _checked_id(tokens: Sequence[str]) -> str:
    resource_id = tokens[1] if len(tokens) > 1 else ""
    if not resource_id:
        raise Fault(EMPTY_ID)
    if not resource_id.replace("_", "a").isalnum():
        raise Fault(BAD_ID)
    return resource_id


def _decode(body: bytes, route: Route) -> Any:
    if route.body is None:
        return None  # a body that nobody asked for is ignored
    try:
        return codec.decode(body, route.body)
    except codec.Malformed as error:
        raise Fault(f"An error occurred when deserializing the json body of a request: {error}.") from error


def _check_same_id(resource_id: str, body: Any) -> None:
    match body:
        case Drive() | DrivePatch() if body.drive_id != resource_id:
            raise Fault(ID_MISMATCH)
        case Pmem() | PmemPatch() if body.id != resource_id:
            raise Fault(ID_MISMATCH)
        case NetworkInterface() | NetworkInterfacePatch() if body.iface_id != resource_id:
            text = f"The id from the path [{resource_id}] does not match the id from the body [{body.iface_id}]!"
            raise Fault(text)
