from __future__ import annotations

import pytest

from firkin.engine.cmdline import Emulation, Root, build, has_init_arguments, with_mmio_devices


def test_everything_we_add_comes_after_the_users_own() -> None:
    line = build("console=ttyS0 quiet", Root(read_only=True), Emulation(pit_ticks=True, tsc_khz=2600000))
    ours = "root=/dev/vda ro nolapic_timer noreplace-smp tsc_early_khz=2600000 tsc=nowatchdog mitigations=off"
    assert line == f"console=ttyS0 quiet pci=off {ours}"


def test_without_root_or_known_tsc_nothing_is_said_of_them() -> None:
    assert build("", None, Emulation(pit_ticks=False, tsc_khz=None)) == "pci=off noreplace-smp mitigations=off"


def test_a_partition_is_named_by_its_uuid() -> None:
    assert "root=PARTUUID=0eaa91a0-01 rw" in build(
        "", Root(read_only=False, partuuid="0eaa91a0-01"), Emulation(pit_ticks=True, tsc_khz=1)
    )


def test_a_guest_that_is_not_emulated_is_told_nothing_of_emulation() -> None:
    assert build("quiet", Root(read_only=True), None) == "quiet pci=off root=/dev/vda ro"


@pytest.mark.parametrize(
    ("user", "absent"),
    [
        ("mitigations=auto", "mitigations=off"),
        ("spectre_v2=on", "mitigations=off"),
        ("nopti", "mitigations=off"),
        ("lapic", "nolapic_timer"),
        ("tsc_early_khz=5", "tsc_early_khz=7"),
        ("tsc=unstable", "tsc=nowatchdog"),
    ],
)
def test_nothing_is_added_against_the_user(user: str, absent: str) -> None:
    assert absent not in build(user, None, Emulation(pit_ticks=True, tsc_khz=7))


def test_arguments_for_init_stay_last() -> None:
    line = build('a="b  c" -- single now', None, Emulation(pit_ticks=False, tsc_khz=None))
    assert line == 'a="b  c" pci=off noreplace-smp mitigations=off -- single now'
    assert has_init_arguments(line)
    assert not has_init_arguments("a --b c--")


def test_devices_of_our_own_naming_come_before_the_dashes() -> None:
    assert (
        with_mmio_devices("a -- b", 2)
        == "a virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11 -- b"
    )
