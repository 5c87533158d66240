"""What opens a stream to the agent, ready to be sent by any kind of client. Pure."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from firkin.agent.frames import Frame
from firkin.agent.messages import ExecRefused, decode_error
from firkin.agent.mux import OUTPUT_WINDOW
from firkin.agent.requests import encode_attach, encode_dial, encode_exec, encode_task
from firkin.errors import AgentError
from firkin.spec import Environment, words


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its frame for a stream number, and the error for an ERROR frame in reply."""

    argv: Sequence[str | bytes]
    encode: Callable[[int], bytes]
    fault: Callable[[Frame], AgentError]
    kept: bool = False  # what it starts outlives the connection


def exec_call(
    argv: Sequence[str | bytes],
    *,
    env: Environment = (),
    cwd: str | None = None,
    user: str | None = None,
    tty: tuple[int, int] | None = None,
    stdin: bool = False,
    kept: bool = False,
    window: int = OUTPUT_WINDOW,
) -> Call:
    """Start a program. With a `window` of 0 it says nothing to us, and all to whoever attaches later."""
    encode = functools.partial(
        encode_exec, argv, env=words(env), cwd=cwd, user=user, tty=tty, stdin=stdin, kept=kept, window=window
    )
    fault = functools.partial(decode_error, program=os.fsdecode(argv[0]) if argv else "", cwd=cwd, user=user)
    return Call(argv, lambda stream: encode(stream=stream), fault, kept)


def task_call(words: Sequence[str | bytes], *, user: str | None = None, stdin: bool = False) -> Call:
    """Start one of the agent's own functions."""
    encode = functools.partial(encode_task, words, user=user, stdin=stdin, window=OUTPUT_WINDOW)
    fault = functools.partial(decode_error, program=os.fsdecode(words[0]), user=user)
    return Call(words, lambda stream: encode(stream=stream), fault)


def dial_call(port: int) -> Call:
    """Connect to a TCP port on the guest's own loopback."""
    name = f"port {port} of the guest"
    encode = functools.partial(encode_dial, port, window=OUTPUT_WINDOW)
    return Call((name,), lambda stream: encode(stream=stream), functools.partial(_blame, name))


def attach_call(pid: int) -> Call:
    """Take over a kept program."""
    name = f"process {pid}"
    encode = functools.partial(encode_attach, pid, window=OUTPUT_WINDOW)
    return Call((name,), lambda stream: encode(stream=stream), functools.partial(_blame, name), kept=True)


def _blame(subject: str, frame: Frame) -> AgentError:
    """The error for an ERROR frame, with the name of what was asked for."""
    error = decode_error(frame, program=subject)
    return AgentError(str(error) if isinstance(error, ExecRefused) else f"{subject}: {error}", hint="")
