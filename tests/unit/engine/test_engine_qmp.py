from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from firkin.engine.qmp import Message, Qmp, QmpClosed, QmpError, QmpTimeout

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


class Qemu:
    def __init__(self) -> None:
        ours, self.socket = socket.socketpair()
        self.events: list[Message] = []
        self.qmp = Qmp(ours, self.events.append)

    def says(self, data: bytes) -> None:
        self.socket.sendall(data)


@pytest.fixture
def qemu() -> Iterator[Qemu]:
    qemu = Qemu()
    yield qemu
    qemu.qmp.close()
    qemu.socket.close()


def test_greeting_then_capabilities(qemu: Qemu) -> None:
    qemu.says(GREETING + b'{"return": {}}\r\n')
    with pytest.raises(QmpTimeout):
        qemu.qmp.negotiate(timeout_s=0.01)  # the answer came before the question
    assert qemu.socket.recv(100) == b'{"execute":"qmp_capabilities"}'


def test_events_between_question_and_answer_are_kept(qemu: Qemu) -> None:
    qemu.says(b'{"event": "STOP"}\r\n{"return": 5}\r\n{"event": "RESUME"}\r\n')
    assert qemu.qmp.execute("stop", some_option=1) == 5
    assert qemu.socket.recv(100) == b'{"execute":"stop","arguments":{"some-option":1}}'
    assert [event["event"] for event in qemu.events] == ["STOP", "RESUME"]


def test_a_refusal_has_qemus_words(qemu: Qemu) -> None:
    qemu.says(b'{"error": {"class": "GenericError", "desc": "no such thing"}}\r\n')
    with pytest.raises(QmpError, match=r"^cont: no such thing$"):
        qemu.qmp.execute("cont")


def test_a_line_may_come_in_parts(qemu: Qemu) -> None:
    qemu.says(b'{"eve')
    qemu.qmp.pump()
    qemu.says(b'nt": "STOP"}\r\n')
    qemu.qmp.pump()
    assert [event["event"] for event in qemu.events] == ["STOP"]


def test_hanging_up_is_noticed(qemu: Qemu) -> None:
    qemu.socket.close()
    with pytest.raises(QmpClosed):
        qemu.qmp.pump()
    with pytest.raises(QmpClosed):
        qemu.qmp.execute("stop")
