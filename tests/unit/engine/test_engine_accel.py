"""KVM is used where it can run kernels, and refused in words where it was asked for and cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firkin.engine.accel import Accel, Choice, choose, group_of_device
from firkin.engine.faults import Fault


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    return path


def native() -> None:
    return None


def emulated() -> str:
    return "KVM is emulated by kvm_pvm and cannot run an ordinary kernel"


def test_native_kvm_is_used_unless_refused(device: Path) -> None:
    assert choose(Choice.AUTO, device=str(device), shortfall=native) is Accel.KVM
    assert choose(Choice.KVM, device=str(device), shortfall=native) is Accel.KVM
    assert choose(Choice.TCG, device=str(device), shortfall=native) is Accel.TCG


def test_kvm_that_is_missing_or_emulated_is_not_used_by_itself(device: Path) -> None:
    assert choose(Choice.AUTO, device=str(device), shortfall=emulated) is Accel.TCG
    assert choose(Choice.AUTO, device=f"{device}-none", shortfall=native) is Accel.TCG


def test_asking_for_kvm_that_is_missing_is_answered_as_upstream_does(device: Path) -> None:
    with pytest.raises(Fault) as refusal:
        choose(Choice.KVM, device=f"{device}-none", shortfall=native)
    assert str(refusal.value) == (
        "Start microvm error: Kvm error: Error creating KVM object: No such file or directory (os error 2) "
        "Make sure the user launching the firecracker process is configured on the /dev/kvm file's ACL."
    )


def test_asking_for_kvm_that_is_emulated_is_refused_with_the_modules_name(device: Path) -> None:
    with pytest.raises(Fault, match="Kvm error: KVM is emulated by kvm_pvm"):
        choose(Choice.KVM, device=str(device), shortfall=emulated)


@pytest.mark.parametrize(("mode", "given"), [(0o660, True), (0o666, False), (0o600, False)])
def test_qemu_joins_the_devices_group_only_where_it_must(device: Path, mode: int, given: bool) -> None:
    device.chmod(mode)
    group = device.stat().st_gid
    assert group_of_device(str(device)) == (group if given and group != 0 else None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other groups")
def test_a_group_of_its_own_is_what_qemu_joins(device: Path) -> None:
    os.chown(device, 0, 104)
    device.chmod(0o660)
    assert group_of_device(str(device)) == 104
