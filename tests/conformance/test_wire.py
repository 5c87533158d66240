"""HTTP as it is on the wire: status lines, headers, limits, pipelining, and what happens to what is no request."""

from __future__ import annotations

import socket

import pytest

from conformance.box import Box, connect, receive, request

HEADERS = "Server: Firecracker API\r\nConnection: keep-alive"
DROPPED = "\nAll previous unanswered requests will be dropped."


def transport(box: Box, data: bytes) -> tuple[int, str]:
    """The answer to bytes that are no request, on a connection of their own."""
    with connect(box.folder / "api.sock") as client:
        client.sendall(data)
        reply = receive(client)
    return reply.status, reply.body.decode()


def error(reason: str) -> str:
    return f'{{ "error": "{reason}{DROPPED}" }}'


def test_a_reply_has_no_reason_phrase_and_its_headers_in_order(fresh: Box) -> None:
    reply = fresh.call("GET", "/version")
    assert reply.head == (
        f"HTTP/1.1 200 \r\n{HEADERS}\r\nContent-Type: application/json\r\nContent-Length: {len(reply.body)}"
    )
    assert fresh.call("PUT", "/logger", {"level": "Debug"}).head == f"HTTP/1.1 204 \r\n{HEADERS}"


def test_an_error_is_compact_json(fresh: Box) -> None:
    reply = fresh.call("PUT", "/machine-config")
    assert reply.head.startswith("HTTP/1.1 400 \r\n")
    assert reply.body == b'{"fault_message":"Empty PUT request."}'


def test_requests_may_be_sent_before_answers_are_read(fresh: Box) -> None:
    with connect(fresh.folder / "api.sock") as client:
        client.sendall(request("GET", "/version") * 3 + request("GET", "/nowhere"))
        assert [receive(client).status for _ in range(4)] == [200, 200, 200, 400]


def test_a_request_may_come_in_pieces(fresh: Box) -> None:
    with connect(fresh.folder / "api.sock") as client:
        for byte in request("PUT", "/logger", {"level": "Debug"}):
            client.sendall(bytes((byte,)))
        assert receive(client).status == 204


def test_leave_to_continue_is_given(fresh: Box) -> None:
    with connect(fresh.folder / "api.sock") as client:
        head, _, body = request("PUT", "/logger", b'{"level":"Debug"}', "Expect: 100-continue\r\n").partition(
            b"\r\n\r\n"
        )
        client.sendall(head + b"\r\n\r\n")
        assert receive(client).status == 100
        client.sendall(body)
        assert receive(client).status == 204


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", "Invalid HTTP Method: Unsupported HTTP method."),
        (b"GET / HTTP/2\r\n\r\n", "Invalid HTTP Version: Unsupported HTTP version."),
        (
            request("PUT", "/mmds", b"x" * 51201)[:200],
            "Request payload with size 51201 is larger than the limit of 51200 allowed by server.",
        ),
    ],
)
def test_what_is_no_request_is_told_as_an_error(fresh: Box, data: bytes, reason: str) -> None:
    assert transport(fresh, data) == (400, error(reason))


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_both_versions_are_spoken(fresh: Box, version: str) -> None:
    assert transport(fresh, f"GET /version {version}\r\n\r\n".encode())[0] == 200


def test_other_headers_do_not_matter(fresh: Box) -> None:
    headers = "Content-Type: application/x-www-form-urlencoded\r\nAccept: */*\r\nX-Other: 1\r\n"
    assert fresh.raw(request("PUT", "/logger", {"level": "Debug"}, headers)).status == 204


@pytest.mark.parametrize("path", ["/version", "//version", "/version/"])
def test_slashes_around_a_path_do_not_matter(fresh: Box, path: str) -> None:
    assert fresh.call("GET", path).status == 200


def test_the_eleventh_connection_is_turned_away(own: Box) -> None:
    held = [connect(own.folder / "api.sock") for _ in range(9)]  # and the one that the box has
    for client in held:
        client.sendall(request("GET", "/version"))
        assert receive(client).status == 200
    assert own.call("GET", "/version").status == 200
    with connect(own.folder / "api.sock") as eleventh:
        told = b""
        while data := _read(eleventh):
            told += data
    assert told.startswith(b"HTTP/1.1 503")
    assert b'{ "error": "Too many open connections" }' in told
    for client in held:
        client.close()
    assert own.call("GET", "/version").status == 200


def _read(client: socket.socket) -> bytes:
    try:
        return client.recv(1000)
    except ConnectionResetError:
        return b""
