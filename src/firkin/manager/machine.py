"""A handle on one machine: run commands in it, log in, stop it, remove it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from firkin.agent.client import AgentConnection, connect
from firkin.errors import EngineError, FirkinError, GuestError, NotFound, UsageError
from firkin.host.lock import locked
from firkin.host.process import ProcessRef
from firkin.host.wait import wait_until
from firkin.manager import reconcile, sessions
from firkin.manager.access import GuestAccess
from firkin.manager.context import Context
from firkin.manager.files import GuestFiles
from firkin.manager.moments import GuestMoments
from firkin.paths import VSOCK_SOCKET
from firkin.store.machines import Lifetime, MachineRecord, State
from firkin.vmm import console

if TYPE_CHECKING:
    from firkin.manager.logs import LogLine, Moment
    from firkin.manager.snapshot import Snapshot
    from firkin.manager.stats import Stats

AGENT_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0


class Machine(GuestMoments, GuestAccess, GuestFiles):
    """One machine of the store, for any number of threads. As a context manager it is removed at the end of its scope,
    unless it was there before (`get`) or was to outlive us (`detach`): then it is only hung up on."""

    def __init__(
        self,
        context: Context,
        machine_id: str,
        *,
        session: int | None = None,
        outlives: bool = False,
        agent: AgentConnection | None = None,
    ) -> None:
        super().__init__(agent)
        self._context = context
        self.id = machine_id
        self._session = session  # descriptor of the session lock, if the machine ends with us
        self._outlives = outlives
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
    def run_folder(self) -> Path:
        """Sockets, vm_config.json, initramfs: there while the machine runs."""
        return self._context.paths.machine_run(self.id)

    @property
    def console_log(self) -> Path:
        return self._context.paths.machine_home(self.id) / "console.log"

    @property
    def engine_log(self) -> Path:
        return self._context.paths.machine_home(self.id) / "engine.log"

    def process(self) -> ProcessRef:
        """The engine's process.

        Raises:
            UsageError: the machine does not run.
        """
        record = self.record
        if not record.up or record.process is None or not record.process.alive():
            raise UsageError(f"machine {record.name!r} is not running", hint=f"firkin ls; firkin logs {record.name}")
        return record.process

    def stats(self) -> Stats:
        """One reading of what the machine uses; a second one, `later.since(earlier)`, gives rates.

        Raises:
            UsageError: the machine does not run.
        """
        from firkin.manager.stats import Meter

        with Meter(self.process(), self.run_folder) as meter:
            return meter.read()

    def snapshot(self, name: str | None = None, *, diff: bool = False) -> Snapshot:
        """Save devices, memory and layer as they are now. A machine that runs stands still for a moment and goes on.

        With `diff`, only what this fork wrote since it was forked: that snapshot is its parent.

        Raises:
            UsageError: the machine does not run, the name will not do, or there is nothing to be a difference from.
            NoSpace: the disk is full; nothing is left, and the machine goes on.
        """
        from firkin.manager import snapshots
        from firkin.manager.snapshot import Snapshot

        return Snapshot(self._context, snapshots.create(self._context, self, name=name, diff=diff).id)

    def fork(self, n: int = 1, *, names: Sequence[str] = (), detach: bool = False) -> list[Machine]:
        """Make `n` more machines that go on from where this one is, each with its own name, address, keys and random
        numbers. This one stands still for a moment, and runs on.

        `names` has one for each; without, they are made up. All of them are there, or none. As with `firkin.run` they
        are removed when this process ends, or with `detach` outlive it.

        Raises:
            InvalidSpec, NameTaken, UsageError: it cannot be done; nothing was touched.
            HostError, EngineError, GuestError: a step failed; all forks were undone.
        """
        from firkin.manager import fork

        lifetime = Lifetime.KEPT if detach else Lifetime.SESSION
        return fork.fork_machine(self._context, self, n, names=names, lifetime=lifetime, outlives=detach)

    @contextmanager
    def try_(self) -> Iterator[Self]:
        """Undo what happens in the guest within this scope if it ends with an error, which then goes on.

        Raises:
            UsageError: the machine does not run.
            NoSpace, EngineError: the moment could not be kept, or not be returned to (then the machine was stopped).
        """
        from firkin.manager import snapshots

        with snapshots.passing(self._context, self) as (snapshot, files):
            self.keep_time()
            try:
                yield self
            except BaseException:
                self._go_back(snapshot, files)
                raise

    def reach(self) -> Path:
        """The VMM's socket, through which the guest's vsock ports are reached.

        Raises:
            UsageError: the machine does not run, or is paused.
        """
        self._engine_or_its_successor()
        self._paused = True  # as far as we know
        self.expect_awake()
        return self.run_folder / VSOCK_SOCKET

    def _engine_or_its_successor(self) -> None:
        """`process`, after whoever is at work on the machine has replaced its engine."""
        try:
            self.process()
        except UsageError:
            with locked(self._context.machine_lock(self.id)):
                self.process()

    def _connect(self) -> AgentConnection:
        return connect(self.reach(), AGENT_TIMEOUT_S)

    def logs(
        self,
        *,
        follow: bool = False,
        since: Moment | None = None,
        until: Moment | None = None,
        tail: int | None = None,
    ) -> Iterator[LogLine]:
        """What the guest wrote on its console, line by line.

        `since` and `until` are seconds since 1970, datetimes, or texts as `firkin logs` takes them; `tail` is the
        number of lines to begin with, the last ones. With `follow` it goes on until the machine ends.

        Raises:
            UsageError: `since` or `until` is no time.
        """
        from firkin.manager.logs import read_logs

        return read_logs(self.console_log, speaks=self.speaks, follow=follow, since=since, until=until, tail=tail)

    def speaks(self) -> bool:
        """Whether more can come into the console's log: the machine runs, or its last words are being written."""
        record = self._context.machines.get(self.id)
        if console.speaks(record.process if record else None, self.run_folder):
            return True
        if record is None or not record.up:
            return False
        with locked(self._context.machine_lock(self.id)):  # whoever is at work on it may have replaced its engine
            record = self._context.machines.get(self.id)
            return console.speaks(record.process if record else None, self.run_folder)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the machine ends; its entrypoint's exit code, None if it did not end by itself.

        The code is what the guest's console says: 128 and the signal's number for a program that was killed.

        Raises:
            GuestError: it still runs after `timeout_s` seconds.
        """
        limit_s = math.inf if timeout_s is None else timeout_s
        if not wait_until(lambda: not self.speaks(), timeout_s=limit_s, interval_s=0.05):
            name = self.name
            raise GuestError(f"machine {name!r}: still running after {limit_s:g} s", hint=f"firkin stop {name}")
        return self.exit_code

    @property
    def exit_code(self) -> int | None:
        """What `wait` answers; None while the machine runs."""
        from firkin.manager.ending import exit_code
        from firkin.vmm.process import tail

        return None if self.speaks() else exit_code(tail(self.console_log))

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Shut the guest down in order; after `timeout_s` seconds without success, kill its engine. A paused one is
        resumed for that."""
        engine, deadline = self.process(), time.monotonic() + timeout_s
        if timeout_s > 0 and self._went_on() and self._asked_to_reboot(timeout_s):
            wait_until(lambda: not engine.alive(), timeout_s=deadline - time.monotonic())
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
        if record is not None and record.up and not force:
            raise UsageError(
                f"machine {record.name!r} is {record.state}", hint=f"firkin stop {record.name}, or rm --force"
            )
        self._end(reconcile.remove)

    def _went_on(self) -> bool:
        """Whether the guest can be asked anything."""
        if self.record.state is State.PAUSED:
            try:
                self.resume()
            except EngineError:
                return False  # the caller kills
        return True

    def _asked_to_reboot(self, timeout_s: float) -> bool:
        """Whether the guest took it in time. A reset is how a Firecracker machine ends: there is no power button."""
        try:
            with connect(self.run_folder / VSOCK_SOCKET, timeout_s) as agent:
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
        self.part()

    def part(self) -> None:
        """Give up the lock by which a machine of this session ends with it. The caller holds the machine's."""
        sessions.discard(self)
        if self._session is not None:
            os.close(self._session)
            self._session = None
