"""A handle on one machine, to await: the twin of `firkin.Machine`. Guest talk is native, threads do the rest."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from firkin.agent.calls import Call, attach_call, dial_call, exec_call, task_call
from firkin.agent.client import START_TIMEOUT_S
from firkin.agent.frames import Kind
from firkin.agent.messages import KeptProgram, decode_kept
from firkin.agent.process import MAX_OUTPUT, REPLY_TIMEOUT_S, ExecResult
from firkin.aio.files import GuestFs
from firkin.aio.pool import Pool
from firkin.aio.process import Process
from firkin.aio.snapshot import Snapshot
from firkin.aio.threads import in_thread, made, threaded, threaded_iterator
from firkin.errors import ExecTimeout, GuestError
from firkin.manager import machine as blocking
from firkin.manager import snapshot as blocking_snapshot
from firkin.spec import Environment

if TYPE_CHECKING:
    from firkin.manager.copy import Copied
    from firkin.net.plan import LinkPlan, NetworkPlan
    from firkin.store.machines import MachineRecord

WAIT_STEP_S = 0.5


class Machine:
    """One machine of the store. As a context manager it is removed at the end of its scope, unless it was there before
    (`get`) or was to outlive us (`detach`): then it is only hung up on. `sync` is the same machine for threads."""

    def __init__(self, machine: blocking.Machine) -> None:
        self.sync = machine
        self.id = machine.id
        self._pool = Pool(machine.reach, machine.expect_awake)
        machine.on_rewind(self._pool.close_soon)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._pool.close()
        # A second cancellation must not leave the machine behind.
        await asyncio.shield(in_thread(lambda: self.sync.__exit__(kind, error, at)))

    async def exec(
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
        at most. Cancelled, it kills the command. Any number may be awaited at once; beyond 256 they wait their turn.

        Raises:
            ExecRefused: it did not start: not found (127), not executable, no such user or folder (126).
            ExecTimeout: it ran longer than `timeout_s` seconds; its process group was killed.
            ExecFailed: with `check`, it ended with something else than 0.
            AgentError: the agent does not answer.
        """
        call = exec_call(argv, env=env, cwd=cwd, user=user, stdin=input is not None)
        async with self._pool.turn():
            result = await self._run(call, input, timeout_s, max_output)
        return result.check() if check else result

    async def start(
        self,
        *argv: str | bytes,
        env: Environment = (),
        cwd: str | None = None,
        user: str | None = None,
        tty: tuple[int, int] | None = None,
        stdin: bool = False,
        kept: bool = False,
    ) -> Process:
        """Start a command and answer a handle to it, as `asyncio.create_subprocess_exec` does. `tty` is (rows, columns)
        of a terminal to run it on; a `kept` program goes on when nobody listens (see `attach`).

        Raises:
            ExecRefused, AgentError: as `exec`.
        """
        return await self._pool.start(exec_call(argv, env=env, cwd=cwd, user=user, tty=tty, stdin=stdin, kept=kept))

    async def kept(self) -> list[KeptProgram]:
        """Programs that were started as `kept` and whose end nobody has seen yet, oldest first."""
        connection = await self._pool.connection()
        return decode_kept(await connection.request(Kind.KEPT, REPLY_TIMEOUT_S))

    async def attach(self, pid: int) -> Process:
        """Take over a kept program by its pid in the guest; what it said lately comes first.

        Raises:
            AgentError: there is none of that pid, or somebody else is attached.
        """
        return await self._pool.start(attach_call(pid))

    async def dial(self, port: int) -> Process:
        """Connect to a TCP port on the guest's own loopback, through vsock: no network is needed.

        Raises:
            AgentError: nobody listens there.
        """
        return await self._pool.start(dial_call(port))

    async def task(self, *words: str | bytes, user: str | None = None, stdin: bool = False) -> Process:
        """Start one of the agent's own functions (docs/agent-protocol.md lists them) as `user`, root if None.

        Raises:
            ExecRefused: there is no such user.
        """
        return await self._pool.start(task_call(words, user=user, stdin=stdin))

    async def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the machine ends; its entrypoint's exit code, None if it did not end by itself.

        Raises:
            GuestError: it still runs after `timeout_s` seconds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = WAIT_STEP_S if deadline is None else deadline - time.monotonic()
            try:
                return await in_thread(functools.partial(self.sync.wait, max(0.0, min(left, WAIT_STEP_S))))
            except GuestError as error:
                if left <= WAIT_STEP_S and deadline is not None:
                    raise type(error)(f"machine {self.name!r}: still running after {timeout_s:g} s") from None

    def close(self) -> None:
        """Hang up on the guest. The machine goes on; this handle connects again when it is used."""
        self._pool.close()
        self.sync.close()

    async def snapshot(self, name: str | None = None, *, diff: bool = False) -> Snapshot:
        """As `firkin.Machine.snapshot`. Cancelled, it ends once what was begun is undone."""
        return Snapshot(await made(lambda: self.sync.snapshot(name, diff=diff), _remove))

    async def copy_across(self, source: str, other: Machine, target: str, *, follow: bool = False) -> Copied:
        """Copy a file or folder of this guest into another machine's; owners are kept, and nothing is written here.

        Raises:
            GuestFileError: one of the guests cannot.
        """
        return await in_thread(lambda: self.sync.copy_across(source, other.sync, target, follow=follow))

    async def fork(self, n: int = 1, *, names: Sequence[str] = (), detach: bool = False) -> list[Machine]:
        """As `firkin.Machine.fork`. Cancelled, it ends once the forks that were begun are undone."""
        return await forked(lambda: self.sync.fork(n, names=names, detach=detach))

    stats = threaded(blocking.Machine.stats)
    top = threaded(blocking.Machine.top)
    logs = threaded_iterator(blocking.Machine.logs)
    copy_in = threaded(blocking.Machine.copy_in)
    copy_out = threaded(blocking.Machine.copy_out)
    archive_in = threaded(blocking.Machine.archive_in)
    archive_out = threaded_iterator(blocking.Machine.archive_out)
    host_address = threaded(blocking.Machine.host_address)
    await_port = threaded(blocking.Machine.await_port)
    inside = threaded(blocking.Machine.inside)
    ssh_argv = threaded(blocking.Machine.ssh_argv)
    ssh_config = threaded(blocking.Machine.ssh_config)
    process = threaded(blocking.Machine.process)

    async def rewind(self, to: Snapshot | str) -> None:
        """As `firkin.Machine.rewind`. Cancelled, it goes on in its thread."""
        await in_thread(lambda: self.sync.rewind(to if isinstance(to, str) else to.sync))

    @asynccontextmanager
    async def try_(self) -> AsyncIterator[Self]:
        """Undo what happens in the guest within this scope if it ends with an error, which then goes on.

        Raises:
            UsageError: the machine does not run.
            NoSpace, EngineError: the moment could not be kept, or not be returned to (then the machine was stopped).
        """
        scope = self.sync.try_()
        await made(scope.__enter__, lambda _: scope.__exit__(None, None, None))
        try:
            yield self
        except BaseException as error:
            how = (type(error), error, error.__traceback__)
            await asyncio.shield(in_thread(lambda: scope.__exit__(*how)))
            raise
        await asyncio.shield(in_thread(lambda: scope.__exit__(None, None, None)))

    pause = threaded(blocking.Machine.pause)
    resume = threaded(blocking.Machine.resume)
    stop = threaded(blocking.Machine.stop)
    kill = threaded(blocking.Machine.kill)
    settle = threaded(blocking.Machine.settle)
    remove = threaded(blocking.Machine.remove)

    @property
    def fs(self) -> GuestFs:
        """Files in the guest: small reads and writes, lists, events."""
        return GuestFs(self.sync.fs)

    @property
    def has_sshd(self) -> bool:
        """Whether its image has an SSH server that knows our key."""
        return self.sync.has_sshd

    @property
    def record(self) -> MachineRecord:
        """The row as it is now.

        Raises:
            NotFound: the machine was removed.
        """
        return self.sync.record

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def address(self) -> str:
        """The guest's IPv4 address on its network."""
        return self.sync.address

    @property
    def run_folder(self) -> Path:
        """Sockets, vm_config.json, initramfs: there while the machine runs."""
        return self.sync.run_folder

    @property
    def console_log(self) -> Path:
        return self.sync.console_log

    @property
    def engine_log(self) -> Path:
        return self.sync.engine_log

    @property
    def network(self) -> NetworkPlan:
        """Where the machine's bridge and tap are."""
        return self.sync.network

    @property
    def link(self) -> LinkPlan:
        """The machine's tap, address and MAC."""
        return self.sync.link

    @property
    def exit_code(self) -> int | None:
        """What `wait` answers; None while the machine runs."""
        return self.sync.exit_code

    async def _run(self, call: Call, stdin: bytes | None, timeout_s: float | None, max_output: int) -> ExecResult:
        """Start, feed and collect; the time limit holds for all of it."""
        limit = START_TIMEOUT_S if timeout_s is None else min(timeout_s, START_TIMEOUT_S)
        began = time.monotonic()
        async with await self._pool.start(call, limit) as process:
            left = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - began))
            try:
                return await process.result(stdin=stdin or b"", timeout_s=left, max_output=max_output)
            except ExecTimeout:
                raise ExecTimeout(f"{process.argv[0]}: still running after {timeout_s:g} s; killed") from None


def _remove(made: blocking_snapshot.Snapshot) -> None:
    made.remove()


async def forked(make: Callable[[], list[blocking.Machine]]) -> list[Machine]:
    """Handles on what `make` answers."""
    return [Machine(machine) for machine in await made(make, _remove_all)]


def _remove_all(machines: list[blocking.Machine]) -> None:
    for machine in machines:
        machine.remove(force=True)
