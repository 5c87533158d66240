"""Which QEMUs can be copied, and which twin is that of which files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin.engine.accel import Accel
from firkin.engine.machine import obstacle
from firkin.engine.snapshot.saved import SavedMachine
from firkin.engine.twin.control import Control
from firkin.engine.twin.nest import MOST, Nest, Offer, Stamp, Twin
from firkin.engine.twin.record import Numbers, Record
from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.machine import DEFAULT_MACHINE

RECORD = Record(Numbers(3, 4, 5, 6, []), "7.2", 0, [], [], [])
SAVED = SavedMachine(
    qemu_version="7.2", accelerator=Accel.TCG, acpi=False, saved_at_ns=1, tsc_khz=None, random_address=None,
    next_host_port=None, devices=b"",
    config=VmConfig(boot_source=BootSource(kernel_image_path="k"), drives=(), machine_config=DEFAULT_MACHINE),
)  # fmt: skip


@pytest.mark.parametrize(
    ("accelerator", "shared", "replaced", "can"),
    [
        (Accel.TCG, False, False, True),
        (Accel.KVM, False, False, False),
        (Accel.TCG, True, False, False),
        (Accel.TCG, False, True, False),
    ],
)
def test_what_lies_in_qemu_alone_can_be_copied(accelerator: Accel, shared: bool, replaced: bool, can: bool) -> None:
    assert (obstacle(accelerator, shared_memory=shared, replaced_drives=replaced) is None) == can


@pytest.fixture
def nest() -> Iterator[Nest]:
    made = Nest()
    yield made
    made.leave()


def twin_of(folder: Path, name: str) -> Twin:
    state, memory = folder / f"{name}.state", folder / f"{name}.memory"
    for path in (state, memory):
        path.write_text(name)
    control, theirs = Control.pair()
    theirs.close()
    stamps = (Stamp.of(str(state)), Stamp.of(str(memory)))
    return Twin(Offer(str(state), str(memory), *stamps, RECORD, SAVED), control)


def test_a_twin_is_found_by_both_of_its_files(nest: Nest, tmp_path: Path) -> None:
    one, other = twin_of(tmp_path, "one"), twin_of(tmp_path, "other")
    nest.add(one)
    nest.add(other)
    assert nest.find(one.offer.state, one.offer.memory) is one
    assert nest.find(one.offer.state, other.offer.memory) is None
    assert nest.find(one.offer.state, str(tmp_path / "missing")) is None
    os.link(one.offer.state, tmp_path / "link")
    assert nest.find(str(tmp_path / "link"), one.offer.memory) is one


@pytest.mark.parametrize("which", ["state", "memory"])
def test_what_was_written_since_has_no_twin(nest: Nest, tmp_path: Path, which: str) -> None:
    twin = twin_of(tmp_path, "one")
    nest.add(twin)
    Path(getattr(twin.offer, which)).write_text("another size")
    assert nest.find(twin.offer.state, twin.offer.memory) is None
    nest.sort_out()
    assert list(nest) == []


def test_a_twin_goes_when_its_files_do_or_when_there_are_too_many(nest: Nest, tmp_path: Path) -> None:
    twins = [twin_of(tmp_path, str(number)) for number in range(MOST + 1)]
    for twin in twins:
        nest.add(twin)
    assert list(nest) == twins[1:]
    Path(twins[1].offer.memory).unlink()
    nest.sort_out()
    assert list(nest) == twins[2:]
