"""What a machine's handle does with programs in the guest: run them, start them, find them again."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from firkin.agent.client import AgentConnection, run_to_end
from firkin.agent.messages import KeptProgram
from firkin.agent.pool import AgentPool
from firkin.agent.process import MAX_OUTPUT, ExecResult, Process
from firkin.spec import Environment

if TYPE_CHECKING:
    from firkin.agent.stats import GuestProcess


class GuestPrograms(ABC):
    """The part of a machine's handle that is about programs. They run on connections that are held."""

    def __init__(self, agent: AgentConnection | None = None) -> None:
        self._agents = AgentPool(self._connect, self.expect_awake, agent)

    @abstractmethod
    def _connect(self) -> AgentConnection:
        """A new connection to the guest's agent."""

    @abstractmethod
    def expect_awake(self) -> None:
        """Refuse, with a UsageError, to ask a guest of which this handle knows that it cannot answer."""

    @contextmanager
    def agent(self) -> Iterator[AgentConnection]:
        """A connection of its own to the agent in the guest, for this scope.

        Raises:
            UsageError: the machine does not run.
            AgentError: its agent does not answer.
        """
        with self._connect() as connection:
            yield connection

    def exec(
        self,
        *argv: str | bytes,
        env: Environment = (),
        cwd: str | None = None,
        user: str | None = None,
        input: bytes | None = None,  # noqa: A002 - as subprocess.run has it
        timeout_s: float | None = None,
        max_output: int = MAX_OUTPUT,
        check: bool = False,
    ) -> ExecResult:
        """Run a command in the guest, never through a shell, and keep what it prints, `max_output` bytes of each stream
        at most. Runs on a connection that is held; any number of threads may call at once.

        Raises:
            ExecRefused: it did not start: not found (127), not executable, no such user or folder (126).
            ExecTimeout: it ran longer than `timeout_s` seconds; its process group was killed.
            ExecFailed: with `check`, it ended with something else than 0.
            AgentError: the agent does not answer.
        """
        start = functools.partial(self._start, env=env, cwd=cwd, user=user)
        result = run_to_end(start, argv, input, timeout_s, max_output)
        return result.check() if check else result

    def start(
        self,
        *argv: str | bytes,
        env: Environment = (),
        cwd: str | None = None,
        user: str | None = None,
        tty: tuple[int, int] | None = None,
        stdin: bool = False,
        kept: bool = False,
    ) -> Process:
        """Start a command and answer a handle to it, as `subprocess.Popen` does. `tty` is (rows, columns) of a terminal
        to run it on; a `kept` program goes on when nobody listens (see `attach`).

        Raises:
            ExecRefused, AgentError: as `exec`.
        """
        return self._start(argv, env=env, cwd=cwd, user=user, tty=tty, stdin=stdin, kept=kept)

    def kept(self) -> list[KeptProgram]:
        """Programs that were started as `kept` and whose end nobody has seen yet, oldest first."""
        with self._agents.room() as agent:
            return agent.kept()

    def attach(self, pid: int) -> Process:
        """Take over a kept program by its pid in the guest; what it said lately comes first.

        Raises:
            AgentError: there is none of that pid, or somebody else is attached.
        """
        with self._agents.room() as agent:
            return agent.attach(pid)

    def dial(self, port: int) -> Process:
        """Connect to a TCP port on the guest's own loopback, through vsock: no network is needed.

        Raises:
            AgentError: nobody listens there.
        """
        with self._agents.room() as agent:
            return agent.dial(port)

    def task(self, *words: str | bytes, user: str | None = None, stdin: bool = False) -> Process:
        """Start one of the agent's own functions (docs/agent-protocol.md lists them) as `user`, root if None.

        Raises:
            ExecRefused: there is no such user.
        """
        with self._agents.room() as agent:
            return agent.task(*words, user=user, stdin=stdin)

    def top(self) -> list[GuestProcess]:
        """The guest's processes, its kernel's threads among them.

        Raises:
            GuestError: the guest does not answer in time, or what it says makes no sense.
        """
        from firkin.manager.stats import top

        with self._agents.room() as agent:
            return top(agent)

    def close(self) -> None:
        """Hang up on the guest. The machine goes on; this handle connects again when it is used."""
        self._agents.close()

    def _start(self, argv: Sequence[str | bytes], **options: Any) -> Process:
        with self._agents.room() as agent:
            return agent.start(argv, **options)
