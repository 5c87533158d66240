"""Machines and workers: when they are started, shared, replaced and removed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from firkin.errors import AgentError, HostError
from firkin.functions.fleet import Fleet


class FakeMachine:
    """Counts what happens to it."""

    def __init__(self) -> None:
        self.removed = False
        self.hired = 0

    def remove(self, *, force: bool = False) -> None:
        assert force
        self.removed = True


class FakeWorker:
    """Lives as long as the test says."""

    def __init__(self, machine: FakeMachine) -> None:
        if machine.removed:
            raise AgentError("the guest's agent hung up")
        machine.hired += 1
        self.machine = machine
        self.alive = True


class World:
    """A fleet of fakes, and what it made."""

    def __init__(self, *, machines: int, seats: int) -> None:
        self.machines: list[FakeMachine] = []
        self.fleet = Fleet(self._boot, FakeWorker, machines=machines, seats=seats)

    def _boot(self) -> FakeMachine:
        self.machines.append(FakeMachine())
        return self.machines[-1]

    def use(self) -> FakeWorker:
        with self.fleet.worker() as worker:
            return worker


def test_nothing_starts_before_it_is_needed_and_then_stays_warm() -> None:
    world = World(machines=4, seats=2)
    assert world.machines == []
    assert world.use() is world.use()
    [machine] = world.machines
    assert machine.hired == 1


def test_the_first_machine_fills_up_before_a_second_boots() -> None:
    world = World(machines=2, seats=2)
    with world.fleet.worker() as one, world.fleet.worker() as two:
        assert one.machine is two.machine
        with world.fleet.worker() as three:
            assert three.machine is not one.machine
    assert len(world.machines) == 2


def test_who_comes_when_all_are_busy_waits() -> None:
    world = World(machines=1, seats=1)
    with ThreadPoolExecutor(1) as threads:
        with world.fleet.worker() as first:
            waiting = threads.submit(world.use)
            assert not waiting.done()
        assert waiting.result(timeout=10) is first


def test_a_worker_that_ended_is_replaced_in_the_same_machine() -> None:
    world = World(machines=1, seats=1)
    world.use().alive = False
    assert world.use().alive
    [machine] = world.machines
    assert machine.hired == 2


def test_a_machine_that_died_is_replaced_at_once() -> None:
    world = World(machines=1, seats=1)
    worker = world.use()
    worker.alive, worker.machine.removed = False, True
    assert world.use().machine is world.machines[1]


def test_after_close_the_next_call_boots_anew() -> None:
    world = World(machines=1, seats=2)
    with world.fleet.worker() as one, world.fleet.worker() as two:
        assert {one.alive, two.alive} == {True}
    world.fleet.close()
    assert world.machines[0].removed
    assert world.use().machine is world.machines[1]
    with world.fleet.worker() as one, world.fleet.worker() as two:
        assert one.machine is two.machine is world.machines[1]


def test_a_seat_is_free_again_after_any_failure() -> None:
    def fail() -> FakeMachine:
        raise HostError("no")

    fleet = Fleet(fail, FakeWorker, machines=1, seats=1)
    for _ in range(3):
        with pytest.raises(HostError), fleet.worker():
            pass
