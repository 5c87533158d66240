"""A guest's Python without a guest: the same program in a process of this host."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from firkin.agent.messages import ExitStatus
from firkin.agent.outputs import Output


class LocalPython:
    """Runs `python3 ARGUMENTS` as a `Process` of the agent would."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        assert argv[0] == "python3"
        self._child = subprocess.Popen(
            [sys.executable, *argv[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        self._stdin = self._child.stdin
        self._open = {self._child.stdout.fileno(): 1, self._child.stderr.fileno(): 2}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def status(self) -> ExitStatus | None:
        code = self._child.poll()
        if code is None:
            return None
        return ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code)

    def read(self, timeout_s: float | None = None) -> Output | None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._open:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = select.select(list(self._open), [], [], left)[0]
            if not ready:
                raise TimeoutError
            data = os.read(ready[0], 65536)
            if data:
                return Output(self._open[ready[0]], data)
            del self._open[ready[0]]
        self._child.wait()
        return None

    def write(self, data: bytes, timeout_s: float | None = None) -> None:
        try:
            while data:
                data = data[self._stdin.write(data) :]
        except BrokenPipeError:
            return

    def close(self) -> None:
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert pipe is not None
            pipe.close()
        self._open.clear()
