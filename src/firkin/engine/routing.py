"""From a request to a call of the API: which route, which resource id, which typed body. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from firkin.engine.faults import BAD_ID, BODY_IN_GET, EMPTY_BODY, EMPTY_ID, ID_MISMATCH, Fault
from firkin.engine.http import Request
from firkin.fcapi import codec
from firkin.fcapi.drives import Drive
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.routes import ID, ROUTES, Route


class Call(NamedTuple):
    """A request that makes sense. `body` is of the route's type."""

    route: Route
    body: Any = None


def parse(request: Request) -> Call:
    """Understand a request.

    Raises:
        Fault: in the words of Firecracker's own parser.
    """
    if request.method == "GET" and request.body is not None:
        raise Fault(BODY_IN_GET)
    route, resource_id = _match(request)
    if route is None or route.body is not None:
        _require_body(request)
    if route is None:
        raise Fault(f"Invalid request method and/or path: {request.method} {_shown_path(request.path)}.")
    if resource_id is not None:
        _check_id(resource_id)
    body = _decode(request.body, route) if route.body is not None and request.body is not None else None
    _check_same_id(resource_id, body)
    return Call(route, body)


def _match(request: Request) -> tuple[Route | None, str | None]:
    tokens = _tokens(request.path)
    for route in ROUTES:
        shape = _tokens(route.path)
        if route.method != request.method:
            continue
        if shape == tokens:
            return route, None
        if shape[-1] == ID and shape[:-1] == tokens[: len(shape) - 1] and len(tokens) <= len(shape):
            return route, tokens[-1] if len(tokens) == len(shape) else ""
    return None, None


def _tokens(path: str) -> list[str]:
    return path.strip("/").split("/")


def _shown_path(path: str) -> str:
    tokens = _tokens(path)
    # Upstream shows the first token only, but for snapshots.
    return path if tokens[0] == "snapshot" else tokens[0]


def _require_body(request: Request) -> None:
    if request.body is None and request.method in ("PUT", "PATCH"):
        raise Fault(EMPTY_BODY[request.method])


def _check_id(resource_id: str) -> None:
    if not resource_id:
        raise Fault(EMPTY_ID)
    if not resource_id.replace("_", "a").isalnum():
        raise Fault(BAD_ID)


def _decode(body: bytes, route: Route) -> Any:
    assert route.body is not None
    try:
        return codec.decode(body, route.body)
    except codec.Malformed as error:
        raise Fault(f"An error occurred when deserializing the json body of a request: {error}.") from error


def _check_same_id(resource_id: str | None, body: Any) -> None:
    if isinstance(body, Drive) and body.drive_id != resource_id:
        raise Fault(ID_MISMATCH)
    if isinstance(body, NetworkInterface) and body.iface_id != resource_id:
        raise Fault(f"The id from the path [{resource_id}] does not match the id from the body [{body.iface_id}]!")
