"""The way back from a start that fails, by steps that touch folders only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from firkin.errors import EngineError, NameTaken
from firkin.host.lock import try_lock
from firkin.manager import networks
from firkin.manager.context import Context
from firkin.manager.start import Start, carry_out, make_folders
from firkin.settings import load
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime, MachineRecord, State


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    context = Context(load({"FIRKIN_HOME": str(tmp_path)}))
    yield context
    context.close()


def start(context: Context, name: str = "web", lifetime: Lifetime = Lifetime.KEPT) -> Start:
    record = MachineRecord(
        id=f"id-of-{name}", name=name, state=State.STARTING, spec=MachineSpec(), lifetime=lifetime,
        engine="firkin-vmm", network="default",
    )  # fmt: skip
    return Start(context=context, record=record, network=networks.plan(context, "default"))


def take_lease(under_way: Start) -> None:
    under_way.context.leases.take("default", under_way.record.id)


def nothing_left(context: Context, under_way: Start) -> bool:
    return (
        context.machines.get(under_way.record.id) is None
        and context.ledger.owners() == []
        and context.leases.count("default") == 0
        and not under_way.run.exists()
        and not under_way.home.exists()
        and context.is_free(context.machine_lock(under_way.record.id))
        and context.is_free(context.session_lock(under_way.record.id))
    )


def test_a_start_that_goes_well_is_written_down(context: Context) -> None:
    under_way = start(context, lifetime=Lifetime.SESSION)
    machine = carry_out(under_way, (("folders", make_folders), ("lease", take_lease)), outlives=True)
    record = machine.record
    assert record.state is State.RUNNING
    assert list(record.timeline) == ["folders", "lease"]
    assert try_lock(context.session_lock(record.id)) is None
    machine.remove(force=True)
    assert nothing_left(context, under_way)


@pytest.mark.parametrize("lifetime", [Lifetime.KEPT, Lifetime.SESSION])
@pytest.mark.parametrize("failure", [EngineError("no"), KeyboardInterrupt()])
def test_a_step_that_fails_undoes_those_before_it(context: Context, failure: BaseException, lifetime: Lifetime) -> None:
    seen: list[bool] = []

    def fail(under_way: Start) -> None:
        under_way.cleanup.callback(seen.append, True)
        assert under_way.run.is_dir()
        raise failure

    under_way = start(context, lifetime=lifetime)
    with pytest.raises(type(failure)):
        carry_out(under_way, (("folders", make_folders), ("lease", take_lease), ("fail", fail)), outlives=False)
    assert nothing_left(context, under_way)
    assert seen == [True]


def test_a_name_that_is_taken_leaves_its_owner_alone(context: Context) -> None:
    carry_out(start(context), (("folders", make_folders),), outlives=True)
    second = start(context)
    second.record = msgspec.structs.replace(second.record, id="another")
    with pytest.raises(NameTaken, match="'web': the name is taken"):
        carry_out(second, (("folders", make_folders),), outlives=True)
    assert [record.id for record in context.machines.all()] == ["id-of-web"]
    assert context.ledger.owners() == ["id-of-web"]
