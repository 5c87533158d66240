from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_fakes import MEMORY_SIZE, PAGE, FakeHypervisor

from firkin.engine.accel import Accel
from firkin.engine.faults import Fault
from firkin.engine.journal import Journal
from firkin.engine.snapshot import format as state_file
from firkin.engine.snapshot import load
from firkin.engine.snapshot.create import create
from firkin.engine.snapshot.saved import SavedMachine
from firkin.engine.vmm import Vmm
from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.drives import Drive
from firkin.fcapi.instance import InstanceState, Vm, VmState
from firkin.fcapi.machine import HugePages, MachineConfiguration
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.snapshot import (
    MemBackend,
    MemBackendType,
    NetworkOverride,
    SnapshotCreate,
    SnapshotLoad,
    SnapshotType,
    VsockOverride,
)
from firkin.fcapi.vsock import Vsock

RESTORE = "Load snapshot error: Failed to restore from snapshot: "
FROM_FILE = f"{RESTORE}Failed to load guest memory: Error creating guest memory from file: "
CONFIG = VmConfig(
    drives=(),
    boot_source=BootSource(kernel_image_path="vmlinux"),
    machine_config=MachineConfiguration(vcpu_count=1, mem_size_mib=1),
    network_interfaces=(NetworkInterface(iface_id="eth0", host_dev_name="tap0"),),
    vsock=Vsock(guest_cid=3, uds_path="v.sock"),
)
SAVED = SavedMachine(
    qemu_version="7.2.22",
    accelerator=Accel.TCG,
    acpi=False,
    saved_at_ns=1,
    tsc_khz=None,
    random_address=None,
    next_host_port=None,
    config=CONFIG,
    devices=b"",
)


class Machine:
    """A started machine on a fake hypervisor, and the two files of its snapshot."""

    def __init__(self, folder: Path) -> None:
        journal = Journal("unit")
        self.log = folder / "log"
        journal.open(str(self.log))
        self.host = FakeHypervisor()
        self.vmm = Vmm(journal, self.host)
        self.vmm.start()
        self.state, self.memory = folder / "state", folder / "memory"
        assert self.host.guest.memory.fd is not None
        os.pwrite(self.host.guest.memory.fd, b"\1" * PAGE, 3 * PAGE)

    def pause(self) -> None:
        self.vmm.set_state(Vm(state=VmState.PAUSED))

    def create(self, kind: SnapshotType = SnapshotType.FULL, **paths: str) -> str:
        body = {"snapshot_path": str(self.state), "mem_file_path": str(self.memory)} | paths
        try:
            create(self.vmm, SnapshotCreate(snapshot_type=kind, **body))
        except Fault as fault:
            return str(fault)
        return ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def loading(**more: Any) -> SnapshotLoad:
    fields = {"snapshot_path": "state", "mem_file_path": "memory"} | more
    return SnapshotLoad(**fields)


def file(path: Path) -> MemBackend:
    return MemBackend(backend_type=MemBackendType.FILE, backend_path=str(path))


def test_only_a_paused_machine_is_saved(machine: Machine) -> None:
    words = "Operation not allowed: save/restore unavailable while running"
    assert machine.create() == f"Create snapshot error: Cannot save the microVM state: {words}"
    assert not machine.state.exists()


def test_a_snapshot_holds_configuration_devices_and_memory(machine: Machine) -> None:
    machine.pause()
    assert machine.create() == ""
    saved = state_file.read(str(machine.state))
    assert (saved.devices, saved.qemu_version, saved.tsc_khz) == (b"devices", "7.2.0", 2_000_000)
    assert saved.config == machine.vmm.resources.describe()
    assert machine.memory.stat().st_size == MEMORY_SIZE
    assert machine.memory.read_bytes()[3 * PAGE : 4 * PAGE] == b"\1" * PAGE
    assert machine.memory.stat().st_blocks * 512 == PAGE
    assert machine.vmm.state is InstanceState.PAUSED


def test_a_diff_is_merged_into_what_is_there(machine: Machine) -> None:
    machine.pause()
    machine.memory.write_bytes(b"\7" * MEMORY_SIZE)
    with machine.memory.open("rb") as held:
        assert machine.create(SnapshotType.DIFF) == ""
        merged = held.read()
    assert merged == b"\7" * 3 * PAGE + b"\1" * PAGE + b"\7" * (MEMORY_SIZE - 4 * PAGE)


def test_a_full_snapshot_leaves_whoever_maps_the_old_file_alone(machine: Machine) -> None:
    machine.pause()
    machine.memory.write_bytes(b"old")
    with machine.memory.open("rb") as held:
        assert machine.create() == ""
        assert held.read() == b"old"


@pytest.mark.parametrize(("path", "what"), [("snapshot_path", "snapshot"), ("mem_file_path", "memory")])
def test_files_that_cannot_be_opened(machine: Machine, path: str, what: str) -> None:
    machine.pause()
    text = f"Create snapshot error: Cannot perform open on the {what} backing file: "
    paths = {path: "/missing/file"}
    assert machine.create(SnapshotType.FULL, **paths) == f"{text}No such file or directory (os error 2)"
    assert not machine.state.exists()
    assert not machine.memory.exists()


def test_memory_that_cannot_be_stored_leaves_no_new_snapshot(machine: Machine) -> None:
    machine.pause()
    text = "Create snapshot error: Cannot perform set_length on the memory backing file: Invalid argument (os error 22)"
    assert machine.create(mem_file_path="/dev/null") == text
    assert not machine.state.exists()


def test_what_takes_time_is_told(machine: Machine) -> None:
    machine.pause()
    machine.create()
    machine.create(SnapshotType.DIFF)
    text = machine.log.read_text()
    for name in ("pause vm", "create full snapshot", "create diff snapshot"):
        assert f"'{name}' VMM action took " in text
        assert f"'{name}' API request took " in text
    us = machine.vmm.latencies.us
    assert us["full_create_snapshot"] >= us["vmm_full_create_snapshot"] > 0
    assert us["load_snapshot"] == 0


def test_a_snapshot_is_not_loaded_into_a_machine_that_was_configured(tmp_path: Path) -> None:
    vmm = Vmm(Journal("unit"), FakeHypervisor())
    vmm.boot_specific = True
    with pytest.raises(Fault) as refused:
        vmm.load(loading())
    words = "Loading a microVM snapshot not allowed after configuring boot-specific resources."
    assert str(refused.value) == f"Load snapshot error: {words}"


@pytest.mark.parametrize(("resume", "state"), [(False, InstanceState.PAUSED), (True, InstanceState.RUNNING)])
def test_a_loaded_machine_is_paused_unless_it_is_to_go_on(tmp_path: Path, resume: bool, state: InstanceState) -> None:
    journal = Journal("unit")
    journal.open(str(tmp_path / "log"))
    vmm = Vmm(journal, FakeHypervisor())
    vmm.load(loading(resume_vm=resume))
    assert (vmm.started, vmm.state) == (True, state)


def test_memory_is_named_by_the_new_field_or_the_old() -> None:
    backend = MemBackend(backend_type=MemBackendType.FILE, backend_path="memory")
    assert load.mem_backend(loading()) == backend
    assert load.mem_backend(loading(mem_file_path=None, mem_backend=backend)) == backend


def test_overrides_change_taps_socket_and_tracking() -> None:
    body = loading(
        network_overrides=(NetworkOverride(iface_id="eth0", host_dev_name="tap9"),),
        vsock_override=VsockOverride(uds_path="other.sock"),
        enable_diff_snapshots=True,
    )
    config = load.override(CONFIG, body)
    assert config.network_interfaces[0].host_dev_name == "tap9"
    assert config.vsock == Vsock(guest_cid=3, uds_path="other.sock")
    assert config.machine_config.track_dirty_pages


def test_overrides_of_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(
        state_file.encode(msgspec.structs.replace(SAVED, config=msgspec.structs.replace(CONFIG, vsock=None)))
    )
    what = f"{RESTORE}Failed to get snapshot state from file: "
    stranger = NetworkOverride(iface_id="eth7", host_dev_name="tap9")
    for more, words in (
        ({"network_overrides": (stranger,)}, "Unknown Network Device."),
        ({"vsock_override": VsockOverride(uds_path="v")}, "Unknown Vsock Device."),
    ):
        with pytest.raises(load.LoadFailed) as refused:
            load.read_state(loading(snapshot_path=str(path), **more))
        assert str(refused.value) == what + words


def test_a_state_file_that_is_missing_or_empty(tmp_path: Path) -> None:
    what = f"{RESTORE}Failed to get snapshot state from file: "
    with pytest.raises(load.LoadFailed) as refused:
        load.read_state(loading(snapshot_path=str(tmp_path / "state")))
    assert str(refused.value) == f"{what}Failed to open snapshot file: No such file or directory (os error 2)"
    (tmp_path / "state").touch()
    with pytest.raises(load.LoadFailed) as refused:
        load.read_state(loading(snapshot_path=str(tmp_path / "state")))
    assert str(refused.value) == (
        f"{what}Failed to load snapshot state from file: IO Error: File too short to contain CRC"
    )


def refused_memory(backend: MemBackend, saved: SavedMachine = SAVED) -> str:
    with pytest.raises(load.LoadFailed) as refused:
        load.open_memory(backend, saved)
    return str(refused.value)


def test_a_memory_file_must_be_there_and_large_enough(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    missing = f"{FROM_FILE}Failed to load guest memory: No such file or directory (os error 2)"
    assert refused_memory(file(path)) == missing
    path.write_bytes(bytes((1 << 20) - 1))
    assert refused_memory(file(path)).endswith("The specified file offset and length is greater then file length")
    path.write_bytes(bytes(1 << 20))
    load.open_memory(file(path), SAVED).close()
    assert refused_memory(file(tmp_path)).endswith("Failed to load guest memory: No such device (os error 19)")


def test_huge_pages_cannot_come_from_a_file(tmp_path: Path) -> None:
    machine = MachineConfiguration(vcpu_count=1, mem_size_mib=2, huge_pages=HugePages.HUGETLBFS_2M)
    saved = msgspec.structs.replace(SAVED, config=msgspec.structs.replace(CONFIG, machine_config=machine))
    words = "Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd."
    assert refused_memory(file(tmp_path), saved) == FROM_FILE + words


def test_a_page_fault_handler_that_is_not_there(tmp_path: Path) -> None:
    backend = MemBackend(backend_type=MemBackendType.UFFD, backend_path=str(tmp_path / "uffd.sock"))
    assert refused_memory(backend) == (
        f"{RESTORE}Failed to load guest memory: Error creating guest memory from uffd: "
        "Failed to connect to UDS Unix stream: No such file or directory (os error 2)"
    )


def test_devices_that_cannot_be_opened(tmp_path: Path) -> None:
    missing = str(tmp_path / "disk")
    config = msgspec.structs.replace(
        CONFIG, drives=(Drive(drive_id="d", is_root_device=False, path_on_host=missing),), network_interfaces=()
    )
    with pytest.raises(load.LoadFailed) as refused:
        load.configure(Vmm(Journal("unit"), FakeHypervisor()), msgspec.structs.replace(SAVED, config=config))
    assert str(refused.value) == (
        f"{RESTORE}Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices: "
        f"Block: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) "
        f"{missing}"
    )
