from __future__ import annotations

import pytest

from firkin.engine.http import BadRequest, Continue, Parser, Request, Response, transport_error

PUT = b'PUT /machine-config HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{"a"'
GET = b"GET / HTTP/1.0\r\n\r\n"


def test_pipelined_requests_come_in_order() -> None:
    assert Parser(100).feed(GET + PUT + GET) == [
        Request("GET", "/"),
        Request("PUT", "/machine-config", b'{"a"'),
        Request("GET", "/"),
    ]


def test_bytes_may_come_one_by_one() -> None:
    parser = Parser(100)
    found = [item for byte in PUT + GET for item in parser.feed(bytes([byte]))]
    assert found == [Request("PUT", "/machine-config", b'{"a"'), Request("GET", "/")]


def test_no_length_and_length_zero_mean_no_body() -> None:
    assert Parser(100).feed(b"PUT /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n") == [Request("PUT", "/a")]


def test_a_client_that_asks_may_send_its_body() -> None:
    parser = Parser(100)
    assert parser.feed(b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\ncontent-length: 2\r\n\r\n") == [Continue()]
    assert parser.feed(b"{}") == [Request("PUT", "/a", b"{}")]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", "Invalid HTTP Method: Unsupported HTTP method."),
        (b"GET / HTTP/2\r\n\r\n", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"GET  HTTP/1.1\r\n\r\n", "Invalid URI: Empty URI not allowed."),
        (b"GET /" + b"a" * 1024, "Invalid request."),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 1024, "Invalid request."),
        (
            b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "Invalid header. Reason: Invalid value. Key:Content-Length; Value:-1",
        ),
        (
            b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",
            "Invalid header. Reason: Header is incorrectly formatted. Key: nonsense",
        ),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=f"^{text}$".replace(".", r"\.")):
        Parser(100).feed(data)


@pytest.mark.parametrize("cut", [0, 1, 5, 260])
def test_a_refused_body_is_not_taken_for_the_next_request(cut: int) -> None:
    parser = Parser(250)
    head, body = b"PUT /mmds HTTP/1.1\r\nContent-Length: 260\r\nAccept: */*\r\n\r\n", b"x" * 260
    with pytest.raises(BadRequest, match="size 260 is larger than the limit of 250 allowed by server"):
        parser.feed(head + body[:cut])
    assert parser.feed(body[cut:] + GET) == [Request("GET", "/")]


def test_a_mistake_drops_what_was_pipelined_before_it() -> None:
    parser = Parser(100)
    with pytest.raises(BadRequest):
        parser.feed(GET + b"NONSENSE\r\n\r\n" + GET)
    assert parser.feed(GET) == [Request("GET", "/")]


def test_replies_have_upstreams_exact_bytes() -> None:
    head = b"Server: Firecracker API\r\nConnection: keep-alive\r\n"
    assert Response(204).encode() == b"HTTP/1.1 204 \r\n" + head + b"\r\n"
    assert Response(204, deprecated=True).encode() == b"HTTP/1.1 204 \r\n" + head + b"Deprecation: true\r\n\r\n"
    assert (
        Response(200, b"{}").encode()
        == b"HTTP/1.1 200 \r\n" + head + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_transport_errors_have_a_shape_of_their_own() -> None:
    body = transport_error("Invalid request.").body
    assert body == b'{ "error": "Invalid request.\nAll previous unanswered requests will be dropped." }'
