"""PUT /snapshot/load: read the state, open what it speaks of, and say of each failure what Firecracker says."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from firkin.engine.faults import Area, Fault, os_text
from firkin.engine.launch import Launch, restore
from firkin.engine.machine import Machine
from firkin.engine.snapshot import clock
from firkin.engine.snapshot import format as state_file
from firkin.engine.snapshot.memory import ForkedMemory, GuestMemory
from firkin.engine.snapshot.saved import SavedMachine
from firkin.engine.twin.control import NoTwin
from firkin.engine.twin.nest import NEST, Twin
from firkin.engine.vmm import Vmm
from firkin.errors import FirkinError
from firkin.fcapi.config import VmConfig
from firkin.fcapi.machine import HugePages
from firkin.fcapi.snapshot import MemBackend, MemBackendType, SnapshotLoad

_FROM_FILE = "Failed to load guest memory: Error creating guest memory from file: "
_FROM_UFFD = "Failed to load guest memory: Error creating guest memory from uffd: "
_PAST_END = (
    "Failed to restore guest memory: Cannot create mmap region: "
    "The specified file offset and length is greater then file length"  # sic
)
_HUGE = "Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd."
_DEVICES = "Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices: "
# Device, and what a PUT of it says before the reason.
_BLOCK = ("Block: ", "Unable to create the virtio block device: ")
_NET = ("Net: ", "Could not create the network device: ")
_VSOCK = ("VsockUnixBackend: ", "Cannot create backend for vsock device: ")


class LoadFailed(Fault):
    """What upstream does not survive."""

    def __init__(self, text: str) -> None:
        super().__init__(f"Failed to restore from snapshot: {text}", Area.LOAD_SNAPSHOT)


def load(launch: Launch, vmm: Vmm, body: SnapshotLoad) -> Machine:
    """The machine of a snapshot, paused. Raises: LoadFailed."""
    twin = _twin(body)
    saved = read_state(body) if twin is None else overridden(twin.offer.saved, body)
    memory = open_memory(mem_backend(body), saved)
    configure(vmm, saved)
    try:
        if twin and (machine := _adopt(launch, saved, memory, twin)):
            return machine
        return _restore(launch, read_state(body) if twin else saved, memory, body)
    except (OSError, FirkinError) as error:
        if isinstance(error, LoadFailed):
            raise
        raise LoadFailed(f"Failed to build microVM from snapshot: {error}") from error


def _twin(body: SnapshotLoad) -> Twin | None:
    """One that sleeps as this snapshot. Its clocks stand, and cannot be moved on."""
    backend = mem_backend(body)
    if body.clock_realtime or backend.backend_type is not MemBackendType.FILE:
        return None
    return NEST.find(body.snapshot_path, backend.backend_path)


def _adopt(launch: Launch, saved: SavedMachine, memory: GuestMemory, twin: Twin) -> Machine | None:
    from firkin.engine.twin.adopting import adopt

    try:
        return adopt(launch, saved, memory, twin)
    except NoTwin as error:
        launch.journal.warn(f"No twin of the saved machine, only its files: {error}")
        return None


def _restore(launch: Launch, saved: SavedMachine, memory: GuestMemory, body: SnapshotLoad) -> Machine:
    return restore(launch, at_present(saved) if body.clock_realtime else saved, memory)


def mem_backend(body: SnapshotLoad) -> MemBackend:
    """Where memory is, by the new name or the old."""
    old = MemBackend(backend_path=body.mem_file_path or "", backend_type=MemBackendType.FILE)
    return body.mem_backend or old


def read_state(body: SnapshotLoad) -> SavedMachine:
    """The saved machine as it is to come back, by its file. Raises: LoadFailed."""
    what = "Failed to get snapshot state from file: "
    try:
        saved = state_file.read(body.snapshot_path)
    except OSError as error:
        raise LoadFailed(f"{what}Failed to open snapshot file: {os_text(error)}") from error
    except state_file.BadStateFile as error:
        raise LoadFailed(f"{what}Failed to load snapshot state from file: {error}") from error
    return overridden(saved, body)


def overridden(saved: SavedMachine, body: SnapshotLoad) -> SavedMachine:
    """The same machine, with what the call wants otherwise. Raises: LoadFailed."""
    try:
        return msgspec.structs.replace(saved, config=override(saved.config, body))
    except KeyError as error:
        raise LoadFailed(f"Failed to get snapshot state from file: {error.args[0]}") from error


def override(config: VmConfig, body: SnapshotLoad) -> VmConfig:
    """The configuration with the taps, the socket and the tracking that the call asks for.

    Raises:
        KeyError: an override of something that the machine does not have, in Firecracker's words.
    """
    nics = {nic.iface_id: nic for nic in config.network_interfaces}
    for each in body.network_overrides:
        if each.iface_id not in nics:
            raise KeyError("Unknown Network Device.")
        nics[each.iface_id] = msgspec.structs.replace(nics[each.iface_id], host_dev_name=each.host_dev_name)
    vsock = config.vsock
    if body.vsock_override is not None:
        if vsock is None:
            raise KeyError("Unknown Vsock Device.")
        vsock = msgspec.structs.replace(vsock, uds_path=body.vsock_override.uds_path)
    tracking = body.track_dirty_pages or body.enable_diff_snapshots
    machine = msgspec.structs.replace(config.machine_config, track_dirty_pages=tracking)
    return msgspec.structs.replace(config, network_interfaces=tuple(nics.values()), vsock=vsock, machine_config=machine)


def open_memory(backend: MemBackend, saved: SavedMachine) -> GuestMemory:
    """The memory file, checked to be large enough, or what a handler fills in. Raises: LoadFailed."""
    if backend.backend_type is MemBackendType.UFFD:
        return _handled(backend.backend_path, saved)
    if saved.config.machine_config.huge_pages is HugePages.HUGETLBFS_2M:
        raise LoadFailed(_FROM_FILE + _HUGE)
    try:
        fd = _open_regular(backend.backend_path)
    except OSError as error:
        raise LoadFailed(f"{_FROM_FILE}Failed to load guest memory: {os_text(error)}") from error
    if os.fstat(fd).st_size < saved.memory_size:
        os.close(fd)
        raise LoadFailed(_FROM_FILE + _PAST_END)
    return ForkedMemory(fd, saved.memory_size, track=saved.config.machine_config.track_dirty_pages)


def configure(vmm: Vmm, saved: SavedMachine) -> None:
    """Open disks, taps and socket. Raises: LoadFailed."""
    config, resources = saved.config, vmm.resources
    with _told("Failed to build microVM from snapshot: ", ""):
        resources.put_machine(config.machine_config)
        if config.balloon is not None:
            resources.put_balloon(config.balloon)
        if config.entropy is not None:
            resources.put_entropy(config.entropy)
    resources.restored_boot = config.boot_source
    for drive in config.drives:
        with _told(_DEVICES + _BLOCK[0], _BLOCK[1]):
            resources.drives.put(drive)
    for nic in config.network_interfaces:
        with _told(_DEVICES + _NET[0], _NET[1]):
            resources.nics.put(nic)
    if config.vsock is not None:
        with _told(_DEVICES + _VSOCK[0], _VSOCK[1]):
            resources.put_vsock(config.vsock, next_host_port=saved.next_host_port)
    if config.mmds_config is not None:
        vmm.metadata()  # empty: data is not the snapshot's to keep
        if config.mmds_config.network_interfaces:
            with _told(_DEVICES + "MmdsConfig: ", ""):
                vmm.put_mmds_config(config.mmds_config)


def at_present(saved: SavedMachine) -> SavedMachine:
    """The same machine with its clocks moved on by the time that has passed. Raises: LoadFailed."""
    passed_ns = max(0, time.time_ns() - saved.saved_at_ns)
    try:
        devices = clock.advance(saved.devices, passed_ns, saved.tsc_khz)
    except clock.NoClock as error:
        raise LoadFailed(f"Failed to build microVM from snapshot: {error}") from error
    return msgspec.structs.replace(saved, devices=devices)


def _open_regular(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    return fd


def _handled(path: str, saved: SavedMachine) -> GuestMemory:
    from firkin.engine.snapshot.uffd import HandledMemory, HandlerFailed

    config = saved.config.machine_config
    huge = config.huge_pages is HugePages.HUGETLBFS_2M
    try:
        return HandledMemory(saved.memory_size, path, huge_pages=huge, track=config.track_dirty_pages)
    except HandlerFailed as error:
        raise LoadFailed(f"{_FROM_UFFD}{error.what}: {os_text(error)}") from error
    except OSError as error:
        raise LoadFailed(f"{_FROM_UFFD}Failed to restore guest memory: {os_text(error)}") from error


@contextmanager
def _told(prefix: str, of_put: str) -> Iterator[None]:
    try:
        yield
    except Fault as error:
        raise LoadFailed(prefix + error.reason.removeprefix(of_put)) from error
