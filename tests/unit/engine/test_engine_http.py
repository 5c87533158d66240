from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.http import SERVER_FULL, TEXT, BadRequest, Continue, Parser, Request, Response, transport_error

PUT = b'PUT /machine-config HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{"a"'
GET = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"GET / HTTP/1.1\r\n"
BAD_VALUE = "Invalid header. Reason: Invalid value."
BAD_UTF8 = "Invalid header. Reason: Header contains invalid characters. Key:"


def test_pipelined_requests_come_in_order() -> None:
    assert Parser(100).feed(GET + PUT + GET) == [
        Request("GET", "/", version="HTTP/1.0"),
        Request("PUT", "/machine-config", b'{"a"'),
        Request("GET", "/", version="HTTP/1.0"),
    ]


def test_bytes_may_come_one_by_one() -> None:
    parser = Parser(100)
    found = [item for byte in PUT + GET for item in parser.feed(bytes([byte]))]
    assert found == [Request("PUT", "/machine-config", b'{"a"'), Request("GET", "/", version="HTTP/1.0")]


def test_no_length_and_length_zero_mean_no_body() -> None:
    assert Parser(100).feed(b"PUT /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n") == [Request("PUT", "/a")]


def test_a_client_that_asks_may_send_its_body() -> None:
    parser = Parser(100)
    head = b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\ncontent-length: +2\r\n\r\n"
    assert parser.feed(head) == [Continue()]
    assert parser.feed(b"{}") == [Request("PUT", "/a", b"{}")]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", "Invalid HTTP Method: Unsupported HTTP method."),
        (b"GET / HTTP/2\r\n\r\n", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"GET  HTTP/1.1\r\n\r\n", "Invalid URI: Empty URI not allowed."),
        (b"GET\r\n", "Invalid request."),
        (b"GET /\r\n", "Invalid request."),
        (b"\r\n", "Invalid request."),
        (b"get / HTTP/1.1\r\n", "Invalid HTTP Method: Unsupported HTTP method."),
        (b"GET / HTTP/1.1 \r\n", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"GET /\xff HTTP/1.1\r\n", "Invalid URI: Cannot parse URI as UTF-8."),
        (b"GET /" + b"a" * 1024, "Invalid request."),
        (
            b"GET / HTTP/1.1\r\nX: " + b"a" * 1024,
            f"Invalid header. Reason: Invalid content length. Header: X: {'a' * 1021}",
        ),
        (HEAD + b"Content-Length: -1\r\n", f"{BAD_VALUE} Key:Content-Length; Value: -1"),
        (HEAD + b"content-length:4294967296\r\n", f"{BAD_VALUE} Key:content-length; Value:4294967296"),
        (HEAD + b"Content-Length: 1:2\r\n", f"{BAD_VALUE} Key:Content-Length; Value: 1:2"),
        (HEAD + b"Accept-Encoding: gzip, identity;q=0\r\n", f"{BAD_VALUE} Key:Accept-Encoding; Value: identity;q=0"),
        (HEAD + b"Accept-Encoding: *;q=0\r\n", f"{BAD_VALUE} Key:Accept-Encoding; Value:*;q=0"),
        (HEAD + b"Accept-Encoding:\r\n", "Invalid request."),
        (HEAD + b"nonsense\r\n", "Invalid header. Reason: Header is incorrectly formatted. Key: nonsense"),
        (HEAD + b"X: \xff\r\n", f"{BAD_UTF8} invalid utf-8 sequence of 1 bytes from index 3"),
        (HEAD + b"X: \xe2\x82\r\n", f"{BAD_UTF8} incomplete utf-8 byte sequence from index 3"),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Parser(100).feed(data)
    assert str(caught.value) == text


@pytest.mark.parametrize("cut", [0, 1, 5, 260])
def test_a_refused_body_is_not_taken_for_the_next_request(cut: int) -> None:
    parser = Parser(250)
    head, body = b"PUT /mmds HTTP/1.1\r\nContent-Length: 260\r\nAccept: */*\r\n\r\n", b"x" * 260
    with pytest.raises(BadRequest, match="size 260 is larger than the limit of 250 allowed by server"):
        parser.feed(head + body[:cut])
    assert parser.feed(body[cut:] + GET) == [Request("GET", "/", version="HTTP/1.0")]


def test_a_mistake_drops_what_was_pipelined_before_it() -> None:
    parser = Parser(100)
    with pytest.raises(BadRequest):
        parser.feed(GET + b"NONSENSE\r\n\r\n" + GET)
    assert parser.feed(GET) == [Request("GET", "/", version="HTTP/1.0")]


@pytest.mark.parametrize("uri", ["/a/b", "http://localhost/a/b", "http://1.2.3.4:80/a/b"])
def test_the_path_of_an_absolute_uri_counts(uri: str) -> None:
    assert Parser(100).feed(f"GET {uri} HTTP/1.1\r\n\r\n".encode()) == [Request("GET", "/a/b")]


@pytest.mark.parametrize("uri", ["a", "http://localhost", "*"])
def test_other_uris_have_no_path(uri: str) -> None:
    assert Parser(100).feed(f"GET {uri} HTTP/1.1\r\n\r\n".encode()) == [Request("GET", "")]


@pytest.mark.parametrize("line", [b"Accept: */*", b"Content-Type: x/y", b"Transfer-Encoding: chunked", b"Expect: 99"])
def test_what_is_not_supported_is_ignored(line: bytes) -> None:
    assert Parser(100).feed(HEAD + line + b"\r\n\r\n") == [Request("GET", "/")]


def test_a_refused_body_that_waits_for_leave_is_not_skipped() -> None:
    parser = Parser(1)
    with pytest.raises(BadRequest, match="size 260"):
        parser.feed(b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 260\r\n\r\n")
    assert parser.feed(HEAD + b"\r\n") == [Request("GET", "/")]


def test_replies_have_upstreams_exact_bytes() -> None:
    head = b"Server: Firecracker API\r\nConnection: keep-alive\r\n"
    assert Response(204).encode() == b"HTTP/1.1 204 \r\n" + head + b"\r\n"
    assert Response(204, deprecated=True).encode() == b"HTTP/1.1 204 \r\n" + head + b"Deprecation: true\r\n\r\n"
    assert (
        Response(200, b"{}").encode()
        == b"HTTP/1.1 200 \r\n" + head + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_replies_can_be_as_the_metadata_service_needs_them() -> None:
    reply = Response(405, b"no", content_type=TEXT, allow=("GET", "PUT"), headers=("X: 1",), version="HTTP/1.0")
    assert reply.encode() == (
        b"HTTP/1.0 405 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nAllow: GET, PUT\r\n"
        b"X: 1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno"
    )


def test_only_100_and_204_go_without_a_length() -> None:
    assert Response(200).encode().endswith(b"Content-Type: application/json\r\nContent-Length: 0\r\n\r\n")
    assert Response(100).encode() == b"HTTP/1.1 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"


def test_a_full_server_says_so_in_its_own_way() -> None:
    head, body = SERVER_FULL.split(b"\r\n\r\n")
    assert head == b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40"
    assert len(body) == 40


def test_transport_errors_have_a_shape_of_their_own() -> None:
    body = transport_error("Invalid request.").body
    assert body == b'{ "error": "Invalid request.\nAll previous unanswered requests will be dropped." }'


NAMES = st.sampled_from(["Content-Type", "X-Y", "Accept", "Host"])
REQUESTS = st.builds(
    lambda method, path, headers, body, version: b"".join(
        [
            f"{method} /{path} {version}\r\n".encode(),
            *(f"{name}: {value}\r\n".encode() for name, value in headers),
            f"Content-Length: {len(body)}\r\n\r\n".encode(),
            body,
        ]
    ),
    st.sampled_from(["GET", "PUT", "PATCH", "DELETE"]),
    st.text("abc/é", max_size=20),
    st.lists(st.tuples(NAMES, st.text("abc: é", max_size=20)), max_size=4),
    st.binary(max_size=300),
    st.sampled_from(["HTTP/1.0", "HTTP/1.1"]),
)


def read_as_the_server_does(stream: bytes, sizes: list[int]) -> list[Request | Continue | str]:
    """As much as there is room for, sometimes less; a refusal is its text."""
    parser, found, left, turn = Parser(1000), list[Request | Continue | str](), stream, 0
    while left:
        assert parser.room > 0
        size = min(parser.room, sizes[turn % len(sizes)])
        data, left, turn = left[:size], left[size:], turn + 1
        try:
            found += parser.feed(data)
        except BadRequest as refused:
            found.append(str(refused))
        assert len(parser._buffer) <= 1024
    return found


@given(st.lists(REQUESTS, max_size=4), st.lists(st.integers(1, 2000), min_size=1, max_size=5))
def test_cuts_do_not_matter(requests: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(requests)
    whole = Parser(1000).feed(stream)
    assert len(whole) == len(requests)
    assert read_as_the_server_does(stream, sizes) == whole


@given(
    st.lists(st.binary(max_size=80) | REQUESTS | st.sampled_from([b"\r\n", b"Content-Length: 5000", b"a" * 1030])),
    st.lists(st.integers(1, 2000), min_size=1, max_size=5),
)
def test_no_bytes_break_the_parser(pieces: list[bytes], sizes: list[int]) -> None:
    read_as_the_server_does(b"".join(pieces), sizes)
