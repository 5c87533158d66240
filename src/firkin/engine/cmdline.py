"""The guest kernel's command line: the user's own, what Firecracker appends, and what emulation needs. Pure."""

from __future__ import annotations

from typing import NamedTuple

# Any of these means that the user has an opinion on mitigations.
_MITIGATIONS = (
    "mitigations",
    "nopti",
    "pti",
    "nospectre_v1",
    "nospectre_v2",
    "spectre_v2",
    "spectre_v2_user",
    "spec_store_bypass_disable",
    "nospec_store_bypass_disable",
    "l1tf",
    "mds",
    "tsx_async_abort",
    "mmio_stale_data",
    "retbleed",
    "srbds",
    "spec_rstack_overflow",
    "gather_data_sampling",
    "reg_file_data_sampling",
)

# QEMU's microvm without ACPI: eight transports of 512 bytes each, interrupts from 5; devices take the highest first.
MMIO_SLOTS = 8
_MMIO_BASE = 0xFEB00000
_MMIO_SIZE = 512
_MMIO_FIRST_IRQ = 5


class Root(NamedTuple):
    """The root device as the kernel is told of it."""

    read_only: bool
    partuuid: str | None = None

    def argument(self) -> str:
        device = f"PARTUUID={self.partuuid}" if self.partuuid else "/dev/vda"
        return f"root={device} {'ro' if self.read_only else 'rw'}"


class Emulation(NamedTuple):
    """What an emulated guest is told of its clocks.

    `pit_ticks` says that it can live by the PIT alone: one processor, and no ACPI, with which Linux uses no PIT.
    """

    pit_ticks: bool
    tsc_khz: int | None


def build(user: str, root: Root | None, emulation: Emulation | None) -> str:
    """The whole line. What we add comes after the user's arguments, never against them, and before a `--`."""
    kernel, dashes, init = _split(user)
    added = ["pci=off", *([root.argument()] if root else [])]
    if emulation is not None:
        added += _for_emulation(kernel, emulation)
    return " ".join([part for part in (kernel.strip(), *added) if part] + ([dashes, init] if dashes else [])).strip()


def has_init_arguments(line: str) -> bool:
    """Whether a `--` ends the kernel's part: what comes after it goes to init."""
    return bool(_split(line)[1])


def with_mmio_devices(line: str, count: int) -> str:
    """Add the positions of `count` virtio-mmio devices to the kernel's part, as QEMU would at the very end."""
    kernel, dashes, init = _split(line)
    slots = range(MMIO_SLOTS - 1, MMIO_SLOTS - 1 - count, -1)
    devices = [
        f"virtio_mmio.device={_MMIO_SIZE}@{_MMIO_BASE + slot * _MMIO_SIZE:#x}:{_MMIO_FIRST_IRQ + slot}"
        for slot in slots
    ]
    return " ".join([kernel.strip(), *devices] + ([dashes, init] if dashes else []))


def _split(line: str) -> tuple[str, str, str]:
    words = line.split()
    if "--" not in words:
        return line, "", ""
    # Cut the text itself, so that quoted spaces in it survive.
    padded = f" {line} "
    kernel, _, init = padded.partition(" -- ")
    return kernel.strip(), "--", init.strip()


def _for_emulation(user: str, emulation: Emulation) -> list[str]:
    names = {word.partition("=")[0] for word in user.split()}
    added = []
    # Calibrating the local APIC's timer costs 250 ms under TCG; without a PIT it is the only one there is.
    if emulation.pit_ticks and not names & {"lapic", "nolapic", "nolapic_timer", "apic", "noapic"}:
        added.append("nolapic_timer")
    if "noreplace-smp" not in names:
        added.append("noreplace-smp")  # patching kernel text throws translated code away
    # The emulated TSC runs at the host's rate; calibrating it against an emulated PIT sometimes never ends.
    if emulation.tsc_khz is not None and "tsc_early_khz" not in names:
        added.append(f"tsc_early_khz={emulation.tsc_khz}")
    # Ticks come late where the host is busy. Judged by them the TSC seems wrong, and only a clock of ticks is left.
    if emulation.tsc_khz is not None and "tsc" not in names:
        added.append("tsc=nowatchdog")
    if not names.intersection(_MITIGATIONS):
        added.append("mitigations=off")  # nothing speculates across an interpreter's translated code
    return added
