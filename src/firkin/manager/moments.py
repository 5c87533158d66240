"""What a machine's handle does with time in the guest: let it stand still, go on, and go back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from firkin.agent.client import AgentConnection
from firkin.errors import AgentError, UsageError
from firkin.host.lock import locked
from firkin.host.process import ProcessRef
from firkin.manager.context import Context
from firkin.manager.programs import GuestPrograms
from firkin.store.machines import MachineRecord, State

if TYPE_CHECKING:
    from firkin.manager.snapshot import Snapshot
    from firkin.manager.snapshot_files import Files
    from firkin.store.snapshots import SnapshotRecord

CLOCK_TIMEOUT_S = 2.0

HangUp = Callable[[AgentError], None]


class GuestMoments(GuestPrograms):
    """The part of a machine's handle that is about moments."""

    id: str
    _context: Context

    def __init__(self, agent: AgentConnection | None) -> None:
        super().__init__(agent)
        self._paused = False  # maybe: the store knows
        self._hang_ups: list[HangUp] = []

    @property
    @abstractmethod
    def record(self) -> MachineRecord:
        """The machine's row as it is now."""

    @abstractmethod
    def process(self) -> ProcessRef:
        """The engine's process; a UsageError when the machine does not run."""

    def pause(self) -> None:
        """Hold the guest still: it takes no processor time and keeps its memory. With `resume` it goes on where it was.

        A paused machine stays paused.

        Raises:
            UsageError: the machine does not run.
            EngineError: the VMM does not answer.
        """
        from firkin.manager import pausing

        self._change(pausing.pause)
        self._paused = True

    def resume(self) -> None:
        """Let a paused guest go on, at the time that it is by now; one that runs already does.

        Raises:
            UsageError: the machine does not run.
            EngineError: the VMM does not answer.
        """
        from firkin.manager import pausing

        paused = self.record.state is State.PAUSED
        self._change(pausing.resume)
        if paused:
            self.keep_time()

    def keep_time(self) -> None:
        """Set the guest's clock to ours: it stood still. One that has ended, or does not answer, keeps what it has."""
        with suppress(UsageError, AgentError):
            if self.record.state is State.RUNNING:
                with self._agents.room() as agent:
                    agent.set_clock(CLOCK_TIMEOUT_S)

    def rewind(self, to: Snapshot | str) -> None:
        """Go back to where this machine was when snapshot `to` was taken: memory, files and programs are those of then.

        Name, address, keys and the console's log stay, and the clock is right. Programs that were started since are
        gone; whoever waits for one gets an AgentError.

        Raises:
            NotFound, UsageError: there is no such snapshot of this machine, or it does not run; nothing has changed.
            EngineError: it failed; the machine was stopped.
        """
        from firkin.manager.snapshot import find
        from firkin.manager.snapshots import materialize

        snapshot = find(self._context, to if isinstance(to, str) else to.id)
        self._go_back(snapshot, materialize(self._context, snapshot))

    def on_rewind(self, hang_up: HangUp) -> None:
        """Call this too, from whichever thread, when a rewind through this handle ends what runs in the guest."""
        self._hang_ups.append(hang_up)

    def expect_awake(self) -> None:
        """Nobody answers in a guest that stands still. Costs nothing where this handle has no reason to think it does.

        Raises:
            UsageError: the machine is paused.
        """
        if self._paused:
            record = self.record
            if record.state is State.PAUSED:
                raise UsageError(f"machine {record.name!r} is paused", hint=f"firkin resume {record.name}")
            self._paused = False

    def _change(self, how: Callable[[Context, MachineRecord], None]) -> None:
        """Do something to a machine that is up, while nobody else does."""
        with locked(self._context.machine_lock(self.id)):
            self.process()
            how(self._context, self.record)

    def _go_back(self, snapshot: SnapshotRecord, files: Files) -> None:
        from firkin.manager.rewind import rewind

        self._agents.add(rewind(self._context, self.id, snapshot, files, self._hang_up))

    def _hang_up(self, why: AgentError) -> None:
        for hang_up in (self._agents.close, *self._hang_ups):
            hang_up(why)
