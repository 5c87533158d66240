"""A handle on one machine: run commands in it, log in, stop it, remove it."""

from __future__ import annotations

import functools
import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from firkin.agent.calls import Environment
from firkin.agent.client import AgentConnection, connect, run_to_end
from firkin.agent.messages import KeptProgram
from firkin.agent.pool import AgentPool
from firkin.agent.process import MAX_OUTPUT, ExecResult, Process
from firkin.errors import FirkinError, GuestError, NotFound, UsageError
from firkin.host.lock import locked
from firkin.host.netns import run_in
from firkin.host.process import ProcessRef
from firkin.host.wait import wait_until
from firkin.manager import keys, networks, reconcile, sessions
from firkin.manager.context import Context
from firkin.net import links
from firkin.net.plan import LinkPlan, NetworkPlan, plan_link
from firkin.store.machines import MachineRecord, State
from firkin.vmm import boot

if TYPE_CHECKING:
    from firkin.agent.stats import GuestProcess
    from firkin.manager.stats import Stats

AGENT_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0

T = TypeVar("T")


class Machine:
    """One machine of the store, for any number of threads. As a context manager it is removed at the end of its scope,
    unless it was there before (`get`) or was to outlive us (`detach`): then it is only hung up on."""

    def __init__(
        self, context: Context, machine_id: str, *, session: int | None = None, outlives: bool = False
    ) -> None:
        self._context = context
        self.id = machine_id
        self._session = session  # descriptor of the session lock, if the machine ends with us
        self._outlives = outlives
        self._agents = AgentPool(self._connect)
        if session is not None:
            sessions.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._outlives:
            self.close()
        else:
            self.remove(force=True)

    @property
    def record(self) -> MachineRecord:
        """The row as it is now.

        Raises:
            NotFound: the machine was removed.
        """
        record = self._context.machines.get(self.id)
        if record is None:
            raise NotFound("machine", self.id, hint="firkin ls")
        return record

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def address(self) -> str:
        """The guest's IPv4 address on its network."""
        return self.record.address or ""

    @property
    def run_folder(self) -> Path:
        """Sockets, vm_config.json, initramfs: there while the machine runs."""
        return self._context.paths.machine_run(self.id)

    @property
    def console_log(self) -> Path:
        return self._context.paths.machine_home(self.id) / "console.log"

    @property
    def engine_log(self) -> Path:
        return self._context.paths.machine_home(self.id) / "engine.log"

    @property
    def network(self) -> NetworkPlan:
        """Where the machine's bridge and tap are."""
        return networks.plan(self._context, self.record.network or "default")

    @property
    def link(self) -> LinkPlan:
        """The machine's tap, address and MAC."""
        slot = self._context.leases.slot(self.id)
        if slot is None:
            raise UsageError(f"machine {self.record.name!r} is not running", hint="firkin ls")
        return plan_link(self.network, slot)

    def host_address(self) -> IPv4Address:
        """The host's own address beside the bridge's: what the guest reaches only by routing."""
        return links.host_address(self.network)

    def await_port(self, port: int, *, timeout_s: float) -> bool:
        """Wait until a TCP port of the guest accepts connections; False when `timeout_s` seconds passed first."""

        address = self.address  # read here: `inside` calls from another thread, and the store belongs to this one

        def accepts() -> bool:
            try:
                socket.create_connection((address, port), timeout=1.0).close()
            except OSError:
                return False
            return True

        return self.inside(lambda: wait_until(accepts, timeout_s=timeout_s, interval_s=0.05))

    def process(self) -> ProcessRef:
        """The engine's process.

        Raises:
            UsageError: the machine does not run.
        """
        record = self.record
        if record.state is not State.RUNNING or record.process is None or not record.process.alive():
            raise UsageError(f"machine {record.name!r} is not running", hint=f"firkin ls; firkin logs {record.name}")
        return record.process

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

    def stats(self) -> Stats:
        """One reading of what the machine uses; a second one, `later.since(earlier)`, gives rates.

        Raises:
            UsageError: the machine does not run.
        """
        from firkin.manager.stats import Meter

        with Meter(self.process(), self.run_folder) as meter:
            return meter.read()

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

    def reach(self) -> Path:
        """The VMM's socket, through which the guest's vsock ports are reached.

        Raises:
            UsageError: the machine does not run.
        """
        self.process()
        return self.run_folder / boot.VSOCK_SOCKET

    def _connect(self) -> AgentConnection:
        return connect(self.reach(), AGENT_TIMEOUT_S)

    def ssh_argv(self, command: Sequence[str] = (), *, user: str = "root") -> list[str]:
        """OpenSSH's command line for this machine. It must run in the network's namespace (see `inside`)."""
        record = self.record
        known_hosts = self.run_folder / "known_hosts"
        if not known_hosts.exists():
            raise UsageError(
                f"machine {record.name!r}: image {record.spec.image!r} has no SSH server",
                hint=f"firkin exec {record.name} -- COMMAND",
            )
        options = {
            "IdentityFile": keys.user_key(self._context.paths),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": known_hosts,
            "HostKeyAlias": record.name,
            "StrictHostKeyChecking": "yes",
            "LogLevel": "ERROR",
        }
        flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        return ["ssh", *flags, f"{user}@{record.address}", *command]

    def inside(self, act: Callable[[], T]) -> T:
        """Call `act` in the namespace of the machine's network, where its address is reachable."""
        netns = self.network.netns
        return act() if netns is None else run_in(netns, act)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the machine ends; its entrypoint's exit code, None if it did not end by itself.

        The code is what the guest's console says: 128 and the signal's number for a program that was killed.

        Raises:
            GuestError: it still runs after `timeout_s` seconds.
        """
        engine = self.record.process
        limit_s = math.inf if timeout_s is None else timeout_s
        if engine is not None and not wait_until(lambda: not engine.alive(), timeout_s=limit_s, interval_s=0.05):
            name = self.name
            raise GuestError(f"machine {name!r}: still running after {limit_s:g} s", hint=f"firkin stop {name}")
        return self.exit_code

    @property
    def exit_code(self) -> int | None:
        """What `wait` answers; None while the machine runs."""
        from firkin.manager.ending import exit_code
        from firkin.vmm.process import tail

        process = self.record.process
        return None if process is not None and process.alive() else exit_code(tail(self.console_log))

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Shut the guest down in order; after `timeout_s` seconds without success, kill its engine."""
        engine = self.process()
        if timeout_s > 0 and self._asked_to_reboot():
            wait_until(lambda: not engine.alive(), timeout_s=timeout_s)
        self._end(reconcile.stop)

    def kill(self) -> None:
        """Stop at once, as pulling the plug does."""
        self.process()
        self._end(reconcile.stop)

    def settle(self) -> None:
        """Write down that the machine ended, or end it now if it did not; keep it in the list."""
        self._end(reconcile.stop)

    def remove(self, *, force: bool = False) -> None:
        """Forget the machine, its layer and its logs.

        Raises:
            UsageError: it runs, and `force` is not set.
        """
        record = self._context.machines.get(self.id)
        if record is not None and record.state is State.RUNNING and not force:
            raise UsageError(f"machine {record.name!r} is running", hint=f"firkin stop {record.name}, or rm --force")
        self._end(reconcile.remove)

    def _asked_to_reboot(self) -> bool:
        """Whether the guest took the request. A reset is how a Firecracker machine ends: there is no power button."""
        try:
            with self.agent() as agent:
                agent.reboot()
        except (FirkinError, OSError):
            return False  # no agent to ask: the caller kills
        return True

    def _end(self, how: Callable[[Context, MachineRecord], None]) -> None:
        self.close()
        with locked(self._context.machine_lock(self.id)):
            record = self._context.machines.get(self.id)
            if record is not None:
                how(self._context, record)
        sessions.discard(self)
        if self._session is not None:
            os.close(self._session)
            self._session = None
