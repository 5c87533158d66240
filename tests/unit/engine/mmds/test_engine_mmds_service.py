"""Requests and replies of the guest, byte for byte, and the tokens between them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.mmds.service import Mmds
from firkin.engine.mmds.tokens import BadTtl, TokenAuthority
from firkin.fcapi.mmds import MmdsConfig, MmdsVersion

V1, V2 = MmdsVersion.V1, MmdsVersion.V2
ASK = b"PUT /latest/api/token HTTP/1.1\r\n"
NO_TTL = (
    "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or `X-aws-ec2-metadata-token-ttl-seconds` "
    "header to specify the token's lifetime."
)
NO_TOKEN = (
    "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` header to specify the session token."
)
DATA = {"latest": {"meta-data": {"id": "i-1"}, "list": [1, 2]}, "age": 43}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def service(version: MmdsVersion = V1, *, imds_compat: bool = False, clock: Clock | None = None) -> Mmds:
    mmds = Mmds("vm-1", 51200, clock or Clock())
    mmds.config = MmdsConfig(version=version, network_interfaces=("eth0",), imds_compat=imds_compat)
    mmds.store.put(DATA)
    return mmds


def get(path: str, *headers: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join((f"{method} {path} {version}", *headers, "\r\n")).encode()


def status(reply: bytes) -> int:
    return int(reply.split(b" ")[1])


def body(reply: bytes) -> bytes:
    return reply.partition(b"\r\n\r\n")[2]


def token(mmds: Mmds, ttl_s: int = 60) -> str:
    reply = mmds.answer(get("/latest/api/token", f"X-metadata-token-ttl-seconds: {ttl_s}", method="PUT"))
    assert status(reply) == 200
    return body(reply).decode()


def test_a_reply_has_firecrackers_lines_in_its_order() -> None:
    assert service().answer(get("/latest/meta-data/id", "Host: 169.254.169.254", "Accept: */*")) == (
        b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 3\r\n\r\ni-1"
    )


def test_json_is_for_those_who_accept_it() -> None:
    reply = service().answer(get("/latest", "accept:application/json"))
    assert b"\r\nContent-Type: application/json\r\n" in reply
    assert body(reply) == b'{"list":[1,2],"meta-data":{"id":"i-1"}}'


def test_imds_compat_shows_text_whatever_is_accepted() -> None:
    reply = service(imds_compat=True).answer(get("/latest", "Accept: application/json"))
    assert b"\r\nContent-Type: text/plain\r\n" in reply
    assert body(reply) == b"list\nmeta-data/"


def test_replies_are_of_the_requests_version() -> None:
    assert service().answer(get("/age", version="HTTP/1.0")).startswith(b"HTTP/1.0 501 \r\n")


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (get("/nothing"), 404, "Resource not found: /nothing."),
        (get("//latest//nothing/"), 404, "Resource not found: //latest//nothing/."),
        (get("/age"), 501, "Cannot retrieve value. The value has an unsupported type."),
        (get("http://169.254.169.254"), 400, "Invalid URI."),
        (get("latest/meta-data"), 400, "Invalid URI."),
        (get("/", method="PATCH"), 405, "Not allowed HTTP method."),
        (get("/", method="DELETE"), 405, "Not allowed HTTP method."),
        (get("/latest", method="PUT"), 404, "Resource not found: /latest."),
        (
            get("/latest/api/token", "X-Forwarded-For: 1.2.3.4", method="PUT"),
            400,
            "Invalid header. Reason: Unsupported header name. Key: X-Forwarded-For",
        ),
        (
            get("/latest/api/token", method="PUT"),
            400,
            NO_TTL,
        ),
        (
            get("/latest/api/token", "X-metadata-token-ttl-seconds: 21601", method="PUT"),
            400,
            "Invalid time to live value provided for token: 21601. Please provide a value between 1 and 21600.",
        ),
        (
            get("/latest/api/token", "X-metadata-token-ttl-seconds:  1h ", method="PUT"),
            400,
            "Invalid header. Reason: Invalid value. Key:X-metadata-token-ttl-seconds; Value:1h",
        ),
        (
            get("/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 4294967296", method="PUT"),
            400,
            "Invalid header. Reason: Invalid value. Key:X-aws-ec2-metadata-token-ttl-seconds; Value:4294967296",
        ),
    ],
)
@pytest.mark.parametrize("version", [V1, V2])
def test_refusals_have_firecrackers_words(request_: bytes, code: int, text: str, version: MmdsVersion) -> None:
    mmds = service(version)
    if request_.startswith(b"GET") and text != "Invalid URI.":
        request_ = request_[:-2] + f"X-metadata-token: {token(mmds)}\r\n\r\n".encode()
    reply = mmds.answer(request_)
    assert (status(reply), body(reply).decode()) == (code, text)
    assert b"Content-Type: text/plain\r\n" in reply
    assert (b"\r\nConnection: keep-alive\r\nAllow: GET, PUT\r\nContent-Type: " in reply) == (code == 405)


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (b"GET /\r\n\r\n", 400, "Invalid request."),
        (b"GET / HTTP/1.1\n\n", 400, "Invalid request."),
        (b"GET / HTTP/1.1\r\nA: b\n\n", 400, "Invalid request."),
        (b"POST / HTTP/1.1\r\n\r\n", 501, "Unsupported HTTP method."),
        (b"GET / HTTP/2.0\r\n\r\n", 501, "Unsupported HTTP version."),
        (b"DELETE  HTTP/1.1\r\n\r\n", 400, "Empty URI not allowed."),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400, "Cannot parse URI as UTF-8."),
        (get("/", "Content-Length: 5"), 400, "Invalid request."),
        (get("/", "Content-Length: x"), 400, "Invalid value. Key:Content-Length; Value: x"),
        (get("/", "nocolon"), 400, "Header is incorrectly formatted. Key: nocolon"),
        (get("/", "Accept-Encoding: gzip, *;q=0"), 400, "Invalid value. Key:Accept-Encoding; Value:*;q=0"),
    ],
)
def test_what_is_no_request_is_told_so(request_: bytes, code: int, text: str) -> None:
    reply = service().answer(request_)
    assert (status(reply), body(reply).decode()) == (code, text)
    assert b"Content-Type: application/json\r\n" in reply


@pytest.mark.parametrize(
    "name", ["X-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token-ttl-seconds", "x-METADATA-token-ttl-seconds"]
)
def test_a_token_comes_with_its_time_to_live(name: str) -> None:
    reply = service(V2).answer(get("/latest//api/token", f"{name}: 060", method="PUT"))
    head, _, text = reply.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[1:] == [
        b"Server: Firecracker API",
        b"Connection: keep-alive",
        f"{name}: 60".encode(),
        b"Content-Type: text/plain",
        b"Content-Length: 48",
    ]
    assert len(base64.b64decode(text, validate=True)) == 36


@pytest.mark.parametrize("header", ["X-metadata-token", "X-aws-ec2-metadata-token", "x-AWS-ec2-Metadata-Token"])
def test_version_2_answers_those_with_a_token(header: str) -> None:
    mmds = service(V2)
    reply = mmds.answer(get("/latest/meta-data/id", f"{header}: {token(mmds)}"))
    assert (status(reply), body(reply)) == (200, b"i-1")
    assert (mmds.metrics.rx_no_token, mmds.metrics.rx_invalid_token) == (0, 0)


def test_version_2_refuses_everybody_else() -> None:
    mmds = service(V2)
    none, bad = mmds.answer(get("/age")), mmds.answer(get("/age", "X-metadata-token: abc"))
    assert (status(none), body(none).decode()) == (
        401,
        NO_TOKEN,
    )
    assert (status(bad), body(bad)) == (401, b"MMDS token not valid.")
    assert (mmds.metrics.rx_no_token, mmds.metrics.rx_invalid_token) == (1, 1)


def test_version_1_only_counts_who_comes_without() -> None:
    mmds = service(V1)
    for headers in ((), ("X-metadata-token: abc",), (f"X-metadata-token: {token(mmds)}",)):
        assert status(mmds.answer(get("/latest", *headers))) == 200
    assert (mmds.metrics.rx_no_token, mmds.metrics.rx_invalid_token) == (1, 1)


def test_tokens_end() -> None:
    clock = Clock()
    mmds = service(V2, clock=clock)
    header = f"X-metadata-token: {token(mmds, 1)}"
    clock.now_s += 0.9
    assert status(mmds.answer(get("/latest", header))) == 200
    clock.now_s += 0.2
    assert status(mmds.answer(get("/latest", header))) == 401


def test_tokens_are_of_one_microvm_and_one_process() -> None:
    mine, restored = TokenAuthority("vm-1", Clock()), TokenAuthority("vm-1", Clock())
    issued = mine.issue(60).decode()
    assert mine.is_valid(issued)
    assert not restored.is_valid(issued)
    assert mine.issue(60) != mine.issue(60)


@pytest.mark.parametrize("ttl_s", [0, 21601, 2**32 - 1])
def test_tokens_live_from_a_second_to_six_hours(ttl_s: int) -> None:
    with pytest.raises(BadTtl):
        TokenAuthority("vm", Clock()).issue(ttl_s)


@given(st.integers(0, 47), st.characters(codec="ascii"))
def test_a_token_with_another_letter_is_no_token(place: int, letter: str) -> None:
    authority = TokenAuthority("vm", Clock())
    issued = authority.issue(60).decode()
    other = issued[:place] + letter + issued[place + 1 :]
    assert authority.is_valid(other) == (other == issued)


@given(st.text(max_size=80))
def test_no_text_is_a_token(text: str) -> None:
    assert not TokenAuthority("vm", Clock()).is_valid(text)


@given(st.sampled_from([b"GET /latest", b"PUT /latest/api/token", b""]), st.binary(max_size=200))
def test_any_bytes_get_a_whole_reply(start: bytes, rest: bytes) -> None:
    reply = service(V2).answer(start + rest + b"\r\n\r\n")
    head, _, text = reply.partition(b"\r\n\r\n")
    assert head.endswith(b"Content-Length: %d" % len(text))
    assert status(reply) in (200, 400, 401, 404, 405, 501)
