"""Hold a guest still and let it go on, so that the store tells the truth also after a `kill -9` in between.

While a guest may stand still though the store does not say so, the journal holds a `Frozen`. There is one way back from
that: let it run. Every function here wants the machine's lock held and its engine alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from firkin.fcapi.instance import Vm, VmState
from firkin.manager.changes import Frozen
from firkin.store.machines import MachineRecord, State
from firkin.vmm.boot import API_SOCKET, Call

if TYPE_CHECKING:
    from firkin.manager.context import Context

TIMEOUT_S = 10.0


def pause(context: Context, record: MachineRecord) -> None:
    """The guest stands still from now on. One that does already stays so."""
    if record.state is State.PAUSED:
        return
    _freeze(context, record)
    with context.db.transaction():
        context.machines.update(record.id, state=State.PAUSED)
        context.ledger.drop(record.id, Frozen)


def resume(context: Context, record: MachineRecord) -> None:
    """The guest runs from now on. One that does already goes on."""
    if record.state is State.PAUSED:
        context.ledger.do(record.id, Frozen())
        thaw(context, record)


@contextmanager
def held(context: Context, record: MachineRecord) -> Iterator[None]:
    """The guest stands still for this scope and then goes on, unless it was paused before."""
    if record.state is State.PAUSED:
        yield
        return
    try:
        _freeze(context, record)
        yield
    finally:
        thaw(context, record)


def thaw(context: Context, record: MachineRecord) -> None:
    """Let a guest run that may stand still, and write it down.

    Raises:
        EngineError: the engine does not answer; the journal keeps the reason to try again.
    """
    _set(context, record, VmState.RESUMED)
    with context.db.transaction():
        context.machines.update(record.id, state=State.RUNNING)
        context.ledger.drop(record.id, Frozen)


def _freeze(context: Context, record: MachineRecord) -> None:
    context.ledger.do(record.id, Frozen())
    _set(context, record, VmState.PAUSED)


def _set(context: Context, record: MachineRecord, state: VmState) -> None:
    from firkin.vmm.client import ApiClient  # most commands call no engine

    with ApiClient(context.paths.machine_run(record.id) / API_SOCKET, timeout_s=TIMEOUT_S) as api:
        api.call(Call("PATCH", "/vm", Vm(state=state)))
