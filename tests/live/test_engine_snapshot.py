"""Snapshots of real guests: what goes on after a restore, what is shared, and what is refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_rig import gone, need_kernel
from net_world import namespace
from page_faults import PageFaultHandler
from snapshot_rig import UDP_PORT, Snapshot, Vm, allocated, boot, build_initrd, vm, vsock_echo

from firkin.engine.snapshot import reseed
from firkin.host import netns

pytestmark = pytest.mark.live

MIB = 1 << 20
RESTORE = "Load snapshot error: Failed to restore from snapshot: "
GUEST_ADDRESS = "10.77.0.2"


@pytest.fixture(scope="module")
def kernel() -> str:
    return need_kernel()


@pytest.fixture(scope="module")
def initrd(kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_initrd(tmp_path_factory.mktemp("initrd"))


@pytest.fixture(scope="module")
def saved(kernel: str, initrd: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A guest with a vsock that has counted to 2, written once; nobody changes these files."""
    folder = tmp_path_factory.mktemp("saved")
    snapshot = Snapshot(folder)
    with vm(folder) as machine:
        boot(machine, kernel, initrd, vsock={"guest_cid": 3, "uds_path": str(folder / "v.sock")})
        assert [machine.ask("count"), machine.ask("count")] == ["1", "2"]
        snapshot.create(machine.api)
    snapshot.memory.chmod(0o600)
    return snapshot


def elsewhere(folder: Path, name: str = "v.sock") -> dict[str, object]:
    return {"vsock_override": {"uds_path": str(folder / name)}}


def test_a_restored_guest_goes_on_where_it_was(saved: Snapshot, tmp_path: Path) -> None:
    with vm(tmp_path) as machine:
        machine.load(saved, **elsewhere(tmp_path))
        assert machine.api.call("GET", "/")[1]["state"] == "Running"
        assert machine.ask("count") == "3"
        assert vsock_echo(tmp_path / "v.sock", b"still here") == b"still here"
        config = machine.api.call("GET", "/vm/config")[1]
        assert config["vsock"]["uds_path"] == str(tmp_path / "v.sock")
        assert config["boot-source"]["kernel_image_path"] == need_kernel()


def test_who_connects_at_once_to_a_restored_guest_is_not_thrown_out_again(saved: Snapshot, tmp_path: Path) -> None:
    with vm(tmp_path, "first") as machine:  # a guest whose server surely listens
        machine.load(saved, **elsewhere(tmp_path, "first.sock"))
        assert machine.ask("count") == "3"
        assert vsock_echo(tmp_path / "first.sock", b"listens") == b"listens"
        later = Snapshot(tmp_path, "later")
        later.create(machine.api)
    for name in "abcdefghij":
        with vm(tmp_path) as machine:
            machine.load(later, **elsewhere(tmp_path, name))
            assert vsock_echo(tmp_path / name, b"at once") == b"at once"


def test_a_restored_guest_is_paused_unless_it_is_to_go_on(saved: Snapshot, tmp_path: Path) -> None:
    with vm(tmp_path) as machine:
        machine.load(saved, resume_vm=False, **elsewhere(tmp_path))
        assert machine.api.call("GET", "/")[1]["state"] == "Paused"
        assert machine.api.call("PATCH", "/vm", {"state": "Resumed"}) == (204, None)
        assert machine.ask("count") == "3"


def test_the_saved_guest_itself_goes_on(kernel: str, initrd: Path, tmp_path: Path) -> None:
    snapshot, uds = Snapshot(tmp_path), tmp_path / "v.sock"
    with vm(tmp_path) as machine:
        boot(machine, kernel, initrd, vsock={"guest_cid": 3, "uds_path": str(uds)})
        for number in ("1", "2"):
            snapshot.create(machine.api)
            assert machine.api.call("GET", "/")[1]["state"] == "Paused"
            machine.api.call("PATCH", "/vm", {"state": "Resumed"})
            assert machine.ask("count") == number
            assert vsock_echo(uds, b"on") == b"on"


def test_a_memory_file_is_sparse_and_shared_by_its_forks(saved: Snapshot, tmp_path: Path) -> None:
    assert saved.memory.stat().st_size == 128 * MIB
    assert allocated(saved.memory) < 48 * MIB
    before = saved.memory.read_bytes()
    with vm(tmp_path, "one") as one, vm(tmp_path, "other") as other:
        for name, machine in (("1", one), ("2", other)):
            machine.load(saved, **elsewhere(tmp_path, name))
        assert one.ask("fill 8") == "8"
        assert [one.ask("count"), other.ask("count"), other.ask("count")] == ["3", "3", "4"]
        assert vsock_echo(tmp_path / "1", b"one") == b"one"
        assert vsock_echo(tmp_path / "2", b"two") == b"two"
        # Of the file's pages a fork has only what it wrote: the rest is the page cache, once for all.
        assert private_bytes(other.qemu(), saved.memory) < 4 * MIB
    assert saved.memory.read_bytes() == before


def private_bytes(pid: int, path: Path) -> int:
    """Memory that a process has of its own in its mapping of a file."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Private_Dirty:"):
            total += int(line.split()[1]) * 1024
    return total


def test_a_restored_qemu_is_fenced_in_and_cannot_write_the_memory_file(saved: Snapshot, tmp_path: Path) -> None:
    with vm(tmp_path) as machine:
        machine.load(saved, **elsewhere(tmp_path))
        pid = machine.qemu()
        status = Path(f"/proc/{pid}/status").read_text()
        for line in ("Uid:\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp_filters:\t3"):
            assert line in status  # filters: the sandbox, the handover, the vsock's
        held = [fd.name for fd in Path(f"/proc/{pid}/fd").iterdir() if str(fd.readlink()) == str(saved.memory)]
        assert held
        for fd in held:
            flags = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split("flags:\t")[1].split()[0]
            assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def test_a_chain_of_snapshots(kernel: str, initrd: Path, tmp_path: Path) -> None:
    """Full, restore, diff, diff, merge into the full one, restore; and a full one of a restored guest."""
    base, diff, again = Snapshot(tmp_path, "base"), Snapshot(tmp_path, "diff"), Snapshot(tmp_path, "again")
    with vm(tmp_path) as machine:
        boot(machine, kernel, initrd)
        machine.ask("count")
        base.create(machine.api)
    with vm(tmp_path) as machine:
        machine.load(base, track_dirty_pages=True)
        assert machine.ask("count") == "2"
        assert machine.ask("fill 4") == "4"
        diff.create(machine.api, "Diff")
        assert 4 * MIB < allocated(diff.memory) < 8 * MIB
        assert diff.memory.stat().st_size == 128 * MIB
        machine.api.call("PATCH", "/vm", {"state": "Resumed"})
        assert machine.ask("count") == "3"
        again.create(machine.api, "Diff")
        assert allocated(again.memory) < 2 * MIB
        diff.create(machine.api, "Diff")  # nothing ran since
        full = Snapshot(tmp_path, "full")
        full.create(machine.api)
    merge(diff.memory, base.memory)
    merge(again.memory, base.memory)
    again.memory = base.memory
    for snapshot in (again, full):
        with vm(tmp_path) as machine:
            machine.load(snapshot)
            assert machine.ask("count") == "4"


def merge(diff: Path, base: Path) -> None:
    """As Firecracker's `rebase-snap`: every extent of data goes over the base."""
    with diff.open("rb") as source, base.open("r+b") as target:
        at, size = 0, diff.stat().st_size
        while True:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = min(os.lseek(source.fileno(), at, os.SEEK_HOLE), size)
            target.seek(at)
            target.write(os.pread(source.fileno(), end - at, at))
            at = end


def test_a_diff_goes_into_the_file_that_the_guest_was_loaded_from(kernel: str, initrd: Path, tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path)
    with vm(tmp_path) as machine:
        boot(machine, kernel, initrd)
        snapshot.create(machine.api, "Diff")  # the first holds everything
    for number, kind in (("1", "Diff"), ("2", "Full"), ("3", "Diff")):
        with vm(tmp_path) as machine:
            machine.load(snapshot)
            assert machine.ask("count") == number
            snapshot.create(machine.api, kind)
            machine.api.call("PATCH", "/vm", {"state": "Resumed"})
            assert machine.ask("count") == str(int(number) + 1)


def test_memory_from_a_page_fault_handler(saved: Snapshot, tmp_path: Path) -> None:
    handler = PageFaultHandler(tmp_path / "uffd.sock", saved.memory, pages_at_once=64)
    backend = {"backend_type": "Uffd", "backend_path": str(tmp_path / "uffd.sock")}
    again = Snapshot(tmp_path)
    with vm(tmp_path) as machine:
        machine.load(saved, mem_backend=backend, track_dirty_pages=True, **elsewhere(tmp_path))
        assert machine.ask("count") == "3"
        assert handler.served == 128 * MIB // 4096
        assert vsock_echo(tmp_path / "v.sock", b"handled") == b"handled"
        again.create(machine.api, "Diff")
        assert allocated(again.memory) < 4 * MIB
    handler.close()


def test_disk_content_is_seen_as_it_is_now(kernel: str, initrd: Path, tmp_path: Path) -> None:
    snapshot, disk = Snapshot(tmp_path), tmp_path / "disk"
    disk.write_bytes(bytes(64 << 10))
    drive = {"drive_id": "d", "is_root_device": False, "path_on_host": str(disk)}
    with vm(tmp_path) as machine:
        boot(machine, kernel, initrd, drives_id_d=drive)
        assert machine.ask("write before") == "before"
        snapshot.create(machine.api)
    with vm(tmp_path) as machine:
        machine.load(snapshot)
        assert machine.ask("read") == "before"
        assert machine.ask("write after") == "after"
    assert disk.read_bytes().startswith(b"after")


def test_a_guest_with_several_processors(kernel: str, initrd: Path, tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path)
    with vm(tmp_path) as machine:
        boot(machine, kernel, initrd, machine_config={"vcpu_count": 2, "mem_size_mib": 128})
        machine.ask("count")
        snapshot.create(machine.api)
    with vm(tmp_path) as machine:
        machine.load(snapshot)
        assert machine.ask("count") == "2"
        assert machine.api.call("GET", "/machine-config")[1]["vcpu_count"] == 2


def test_a_guest_that_finds_its_devices_by_acpi(initrd: Path, tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path)
    with vm(tmp_path) as machine:
        boot(machine, acpi_kernel(), initrd, machine_config={"vcpu_count": 1, "mem_size_mib": 256})
        machine.ask("count")
        snapshot.create(machine.api)
    with vm(tmp_path) as machine:
        machine.load(snapshot)
        assert machine.ask("count") == "2"


def acpi_kernel() -> str:
    path = os.environ.get("FIRKIN_TEST_DEBIAN_KERNEL", "")
    if not path:
        pytest.skip("FIRKIN_TEST_DEBIAN_KERNEL names no kernel; a home in FIRKIN_TEST_HOME would")
    return path


@pytest.mark.parametrize("realtime", [False, True])
def test_the_clock_stands_still_unless_it_is_to_go_on(
    kernel: str, initrd: Path, tmp_path: Path, realtime: bool
) -> None:
    snapshot = Snapshot(tmp_path)
    with vm(tmp_path) as machine:
        boot(machine, kernel, initrd)
        snapshot.create(machine.api)
        machine.api.call("PATCH", "/vm", {"state": "Resumed"})
        before = float(machine.ask("clock").split()[0])
        began = time.monotonic()
    time.sleep(3)
    with vm(tmp_path) as machine:
        machine.load(snapshot, clock_realtime=realtime)
        passed = float(machine.ask("clock").split()[0]) - before
        expected = time.monotonic() - began
    assert passed == pytest.approx(expected if realtime else 0, abs=1.0)


def test_forks_draw_different_random_numbers(kernel: str, saved: Snapshot, tmp_path: Path) -> None:
    with Path(kernel).open("rb") as file:
        if reseed.find(file.fileno()) is None:
            pytest.skip("the kernel file does not name its random number generator")
    numbers = set()
    for name in ("1", "2"):
        with vm(tmp_path) as machine:
            machine.load(saved, **elsewhere(tmp_path, name))
            numbers |= {machine.ask("random"), machine.ask("random")}
    assert len(numbers) == 4


class Wire:
    """A namespace with a tap, whose own side has an address in the guest's network."""

    def __init__(self, name: str, tap: str) -> None:
        self.name = name
        self.prefix = ("ip", "netns", "exec", name)
        for command in (f"tuntap add {tap} mode tap", f"addr add 10.77.0.1/24 dev {tap}", f"link set {tap} up"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)

    def echo(self, message: bytes) -> bytes:
        """What the guest's UDP echo answers, from inside the namespace."""

        def talk() -> bytes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(1)
                for _ in range(10):
                    client.sendto(message, (GUEST_ADDRESS, UDP_PORT))
                    try:
                        return client.recv(2048)
                    except TimeoutError:
                        continue
            raise AssertionError("the guest does not answer")

        return netns.run_in(self.name, talk)


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Wire]]:
    """Two namespaces, and taps of different names in them."""
    with namespace() as here, namespace() as there:
        yield Wire(here, "tap0"), Wire(there, "other0")


def test_a_restore_in_another_namespace(kernel: str, initrd: Path, tmp_path: Path, wires: tuple[Wire, Wire]) -> None:
    here, there = wires
    snapshot = Snapshot(tmp_path)
    nic = {"iface_id": "eth0", "host_dev_name": "tap0"}
    metadata = {"version": "V2", "network_interfaces": ["eth0"], "ipv4_address": "169.254.170.2"}
    with vm(tmp_path, prefix=here.prefix) as machine:
        boot(machine, kernel, initrd, address=GUEST_ADDRESS, network_interfaces_id_eth0=nic, mmds_config=metadata)
        assert here.echo(b"here") == b"here"
        mac = machine.ask("mac")
        snapshot.create(machine.api)
    override = [{"iface_id": "eth0", "host_dev_name": "other0"}]
    with vm(tmp_path, "a", here.prefix) as one, vm(tmp_path, "b", there.prefix) as other:
        one.load(snapshot)
        other.load(snapshot, network_overrides=override)
        assert here.echo(b"one") == b"one"
        assert there.echo(b"two") == b"two"
        assert one.ask("mac") == other.ask("mac") == mac
        config = other.api.call("GET", "/vm/config")[1]
        assert config["network-interfaces"][0]["host_dev_name"] == "other0"
        assert config["mmds-config"]["ipv4_address"] == "169.254.170.2"


def refused(machine: Vm, snapshot: Snapshot, **more: object) -> str:
    """The fault of a load, after which the process must end by itself, with 1."""
    pid = machine.engine.process.pid
    text = machine.api.fault("PUT", "/snapshot/load", snapshot.body(**more))
    assert machine.engine.wait() == 1
    assert gone(pid)
    return text


def test_bad_files_end_the_process_with_a_reason(saved: Snapshot, tmp_path: Path) -> None:
    whole = saved.state.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    what = f"{RESTORE}Failed to get snapshot state from file: Failed to load snapshot state from file: "
    for content, words in (
        (b"", "IO Error: File too short to contain CRC"),
        (whole[:-1], "CRC64 validation failed"),
        (bytes(damaged), "CRC64 validation failed"),
        (b"\x7fELF" + bytes(4096), "Magic value does not match arch: 1179403647"),
    ):
        bad = Snapshot(tmp_path)
        bad.memory = saved.memory
        bad.state.write_bytes(content)
        with vm(tmp_path) as machine:
            assert refused(machine, bad) == what + words


def test_missing_and_short_files(saved: Snapshot, tmp_path: Path) -> None:
    absent = Snapshot(tmp_path)
    with vm(tmp_path) as machine:
        text = "Failed to get snapshot state from file: Failed to open snapshot file: No such file or directory"
        assert refused(machine, absent) == f"{RESTORE}{text} (os error 2)"
    absent.state = saved.state
    what = f"{RESTORE}Failed to load guest memory: Error creating guest memory from file: "
    with vm(tmp_path) as machine:
        assert refused(machine, absent) == f"{what}Failed to load guest memory: No such file or directory (os error 2)"
    absent.memory.write_bytes(bytes(MIB))
    with vm(tmp_path) as machine:
        assert refused(machine, absent).endswith("The specified file offset and length is greater then file length")


def test_unknown_overrides(saved: Snapshot, tmp_path: Path) -> None:
    with vm(tmp_path) as machine:
        text = refused(machine, saved, network_overrides=[{"iface_id": "eth0", "host_dev_name": "tap0"}])
        assert text == f"{RESTORE}Failed to get snapshot state from file: Unknown Network Device."


def test_a_socket_in_use(saved: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "v.sock").touch()
    with vm(tmp_path) as machine:
        text = refused(machine, saved, **elsewhere(tmp_path))
    assert text.startswith(f"{RESTORE}Failed to build microVM from snapshot: Failed to restore devices: ")
    assert text.endswith("Address in use (os error 98)")


def test_a_state_of_another_qemu_is_refused(saved: Snapshot, tmp_path: Path) -> None:
    import msgspec

    from firkin.engine.snapshot import format as state_file

    other = Snapshot(tmp_path)
    other.memory = saved.memory
    state = msgspec.structs.replace(state_file.read(str(saved.state)), qemu_version="6.1.0")
    other.state.write_bytes(state_file.encode(state))
    with vm(tmp_path) as machine:
        assert "the snapshot was made with QEMU 6.1.0, and this is" in refused(machine, other, **elsewhere(tmp_path))


def test_a_state_that_qemu_refuses_is_told(saved: Snapshot, tmp_path: Path) -> None:
    import msgspec

    from firkin.engine.snapshot import format as state_file

    other = Snapshot(tmp_path)
    other.memory = saved.memory
    state = state_file.read(str(saved.state))
    other.state.write_bytes(state_file.encode(msgspec.structs.replace(state, devices=state.devices[:-100])))
    with vm(tmp_path) as machine:
        text = refused(machine, other, **elsewhere(tmp_path))
    assert text.startswith(f"{RESTORE}Failed to build microVM from snapshot: ")
    assert "QEMU exited with 1" in text


def test_loading_needs_a_fresh_process_which_survives(saved: Snapshot, tmp_path: Path) -> None:
    with vm(tmp_path) as machine:
        machine.api.put("/machine-config", vcpu_count=1, mem_size_mib=128)
        assert machine.api.fault("PUT", "/snapshot/load", saved.body()) == (
            "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources."
        )
        assert machine.api.call("GET", "/")[1]["state"] == "Not started"


def test_memory_is_named_once(saved: Snapshot, tmp_path: Path) -> None:
    body = "An error occurred when deserializing the json body of a request: "
    what = "either `mem_backend` or `mem_file_path`"
    with vm(tmp_path) as machine:
        both = machine.api.fault("PUT", "/snapshot/load", saved.body(mem_file_path=str(saved.memory)))
        assert both == f"{body}too many fields: {what} exclusively is required."
        neither = machine.api.fault("PUT", "/snapshot/load", {"snapshot_path": str(saved.state)})
        assert neither == f"{body}missing field: {what} is required."
        machine.load(saved, **elsewhere(tmp_path))


def test_a_loaded_machine_cannot_be_loaded_again(saved: Snapshot, tmp_path: Path) -> None:
    with vm(tmp_path) as machine:
        machine.load(saved, **elsewhere(tmp_path))
        assert machine.api.fault("PUT", "/snapshot/load", saved.body()) == (
            "The requested operation is not supported after starting the microVM."
        )


def test_a_killed_engine_leaves_no_half_snapshot(kernel: str, initrd: Path) -> None:
    """Over an older snapshot of the same names: afterwards either a whole one loads, or none is there."""
    outcomes = set()
    with tempfile.TemporaryDirectory(prefix="firkin-snapshot-") as name:
        folder = Path(name)
        snapshot = Snapshot(folder)
        with vm(folder) as machine:
            boot(machine, kernel, initrd)
            snapshot.create(machine.api)
        for delay_ms in (0, 1, 3, 6, 10, 15, 25):
            with vm(folder) as machine:
                machine.load(snapshot)
                count = machine.ask("count")
                machine.ask("fill 32")
                machine.api.call("PATCH", "/vm", {"state": "Paused"})
                kill_during_create(machine, snapshot, delay_ms / 1000)
            outcomes.add(snapshot.state.exists())
            if not snapshot.state.exists():
                with vm(folder) as machine:
                    boot(machine, kernel, initrd)
                    snapshot.create(machine.api)
                continue
            with vm(folder) as machine:
                machine.load(snapshot)
                assert machine.ask("count") in (count, str(int(count) + 1))
    assert True in outcomes


def kill_during_create(machine: Vm, snapshot: Snapshot, delay_s: float) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(delay_s)
        os.kill(machine.engine.process.pid, signal.SIGKILL)
        os._exit(0)
    try:
        body = {"snapshot_path": str(snapshot.state), "mem_file_path": str(snapshot.memory)}
        machine.api.call("PUT", "/snapshot/create", body)
    except (AssertionError, OSError):
        pass  # it hung up, as it should
    os.waitpid(child, 0)
