"""Payloads: what is written is read back, and a hostile guest's bytes end in AgentError."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.agent.frames import EXEC_STDIN, EXEC_TTY, Frame, FrameReader, Kind
from firkin.agent.messages import (
    ErrorCode,
    ExecRefused,
    ExitStatus,
    Hello,
    decode_error,
    decode_exit,
    decode_started,
    decode_window,
)
from firkin.agent.requests import encode_exec
from firkin.errors import AgentError


def one(wire: bytes) -> Frame:
    (frame,) = FrameReader().feed(wire)
    return frame


def error(code: int, text: bytes) -> Frame:
    return Frame(Kind.ERROR, struct.pack("<HI", code, len(text)) + text, stream=1)


def test_hello_comes_back_with_its_timings() -> None:
    hello = Hello(pid=7, init_ms=200, root_ms=220, network_ms=230, ready_ms=240, hostname="web-1")
    assert Hello.decode(one(hello.encode(Kind.HELLO_ACK))) == hello


def test_another_version_is_refused_with_what_to_do() -> None:
    with pytest.raises(AgentError, match="versions 3 to 9") as caught:
        Hello.decode(one(Hello(3, 9).encode()))
    assert "restart the machine" in caught.value.hint


@given(st.sampled_from(Kind), st.binary(max_size=120))
def test_no_payload_raises_anything_but_agent_errors(kind: Kind, payload: bytes) -> None:
    frame = Frame(kind, payload)
    decoders: tuple[Callable[[Frame], object], ...] = (Hello.decode, decode_started, decode_window, decode_exit)
    for decode in decoders:
        try:
            decode(frame)
        except AgentError:
            continue
    assert isinstance(decode_error(frame) if len(payload) >= 6 else AgentError(""), AgentError)


def test_exit_is_told_as_a_shell_tells_it() -> None:
    assert ExitStatus(code=3).returncode == 3
    assert ExitStatus(signal=9).returncode == 137
    assert decode_exit(Frame(Kind.EXIT, struct.pack("<II", 1, 15))) == ExitStatus(signal=15)
    with pytest.raises(AgentError):
        decode_exit(Frame(Kind.EXIT, struct.pack("<II", 2, 0)))


@pytest.mark.parametrize(
    ("code", "returncode", "names"),
    [
        (ErrorCode.NOT_FOUND, 127, "tool: gone"),
        (ErrorCode.NOT_EXECUTABLE, 126, "tool: gone"),
        (ErrorCode.WORKDIR, 126, "working directory /w: gone"),
        (ErrorCode.USER, 126, "user bob: gone"),
    ],
)
def test_a_refusal_names_what_was_at_fault(code: ErrorCode, returncode: int, names: str) -> None:
    refused = decode_error(error(code, b"gone"), program="tool", cwd="/w", user="bob")
    assert isinstance(refused, ExecRefused)
    assert refused.returncode == returncode
    assert str(refused) == names


def test_other_errors_are_no_refusals() -> None:
    assert not isinstance(decode_error(error(ErrorCode.LIMIT, b"too many")), ExecRefused)
    assert "no sense" in str(decode_error(Frame(Kind.ERROR, struct.pack("<HI", 1, 9) + b"short")))


def test_exec_lays_out_its_strings_with_their_ends() -> None:
    frame = one(encode_exec(["ls", b"\xff"], env=["A=b"], cwd="/", tty=(24, 80), window=5, stream=9))
    assert frame.stream == 9
    assert frame.flags == EXEC_TTY | EXEC_STDIN
    assert frame.payload == (
        struct.pack("<HHI", 24, 80, 5)
        + struct.pack("<I", 5) + b"ls\0\xff\0"
        + struct.pack("<I", 4) + b"A=b\0"
        + struct.pack("<I", 2) + b"/\0"
        + struct.pack("<I", 0)
    )  # fmt: skip


@pytest.mark.parametrize("argv", [[], ["a\0b"]])
def test_exec_refuses_what_no_program_could_get(argv: list[str]) -> None:
    with pytest.raises(AgentError):
        encode_exec(argv)
