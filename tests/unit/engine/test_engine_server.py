from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from firkin.engine.http import Request, Response
from firkin.engine.loop import Loop
from firkin.engine.server import ApiServer

GET = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
OK += b"Content-Type: application/json\r\nContent-Length: 1\r\n\r\n/"


def answer(request: Request) -> Response:
    size = int(request.path[1:] or 0)
    return Response(200, b"x" * size if size else request.path.encode())


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A server on a thread of its own; a client's GET of /stop ends it."""
    loop, path = Loop(), str(tmp_path / "api.sock")
    server = ApiServer(loop, path)

    def answer_or_stop(request: Request) -> Response:
        if request.path == "/stop":
            loop.stop(0)
            return Response(204)
        return answer(request)

    server.serve(answer_or_stop, 1000)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    yield path
    with connect(path) as client:
        client.sendall(b"GET /stop HTTP/1.1\r\n\r\n")
        thread.join(10)
    assert not thread.is_alive()
    server.close()


def connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(path)
    return client


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def test_a_connection_serves_many_requests(path: str) -> None:
    with connect(path) as client:
        for _ in range(3):
            client.sendall(GET)
            assert receive(client, len(OK)) == OK
        client.sendall(GET * 5)
        assert receive(client, 5 * len(OK)) == 5 * OK


def test_a_client_that_says_no_more_still_gets_its_answer(path: str) -> None:
    with connect(path) as client:
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 10_000) == OK


def test_an_answer_larger_than_the_sockets_buffer_arrives_whole(path: str) -> None:
    with connect(path) as client:
        client.sendall(b"GET /3000000 HTTP/1.1\r\n\r\n" + GET)
        expected = Response(200, b"x" * 3_000_000).encode() + OK
        assert receive(client, len(expected)) == expected


def test_the_eleventh_client_is_sent_away(path: str) -> None:
    with ExitStack() as clients:
        for _ in range(10):
            client = clients.enter_context(connect(path))
            client.sendall(GET)
            assert receive(client, len(OK)) == OK
        with connect(path) as late:
            assert receive(late, 10_000).startswith(b"HTTP/1.1 503\r\n")
            assert late.recv(1) == b""
        client.sendall(GET)
        assert receive(client, len(OK)) == OK


def test_who_hung_up_before_makes_room(path: str) -> None:
    for _ in range(5):
        with ExitStack() as clients:
            for _ in range(10):
                clients.enter_context(connect(path))
        with connect(path) as client:
            client.sendall(GET)
            assert receive(client, len(OK)) == OK


def test_after_a_mistake_the_connection_goes_on(path: str) -> None:
    with connect(path) as client:
        client.sendall(b"NONSENSE\r\n")
        reply = client.recv(10_000)
        assert reply.startswith(b"HTTP/1.1 400 \r\n")
        assert reply.endswith(b'{ "error": "Invalid request.\nAll previous unanswered requests will be dropped." }')
        client.sendall(GET)
        assert receive(client, len(OK)) == OK


def test_leave_to_send_a_body_is_given_once(path: str) -> None:
    with connect(path) as client:
        client.sendall(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        expected = b"HTTP/1.1 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
        assert receive(client, len(expected)) == expected
        client.sendall(b"{}")
        assert receive(client, len(OK)) == OK


def test_what_is_left_to_send_is_sent_before_hanging_up(tmp_path: Path) -> None:
    loop = Loop()
    server = ApiServer(loop, str(tmp_path / "s"))

    def stop(_request: Request) -> Response:
        loop.stop(7)
        return Response(204)

    server.serve(stop, 1000)
    with connect(str(tmp_path / "s")) as client:
        client.sendall(GET)
        assert loop.run() == 7
        server.close()
        assert client.recv(100).startswith(b"HTTP/1.1 204 \r\n")
        assert client.recv(100) == b""


def test_a_path_in_use_is_refused(path: str) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        ApiServer(Loop(), path)
