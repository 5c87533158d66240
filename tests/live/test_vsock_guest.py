"""The vsock device against a real guest: QEMU unprivileged and sandboxed, as the engine runs it."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import vsock_machine
from vsock_machine import BLOCK, ECHO, Machine, pattern, read_all

from firkin.engine.vsock.muxer import MAX_CONNECTIONS

pytestmark = pytest.mark.live

ECONNRESET = b"errno 104\n"
MIB = 1 << 20


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that QEMU may enter as nobody, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="firkin-vsock-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(scope="module")
def initrd(directory: Path) -> Path:
    vsock_machine.kernel()
    return vsock_machine.build_initrd(directory)


@pytest.fixture(scope="module")
def guest(directory: Path, initrd: Path) -> Iterator[Machine]:
    with vsock_machine.machine(directory) as made:
        made.boot(initrd)
        made.wait_ready()
        yield made
        assert made.device.fault is None


def exchange(connected: socket.socket, message: bytes) -> bytes:
    connected.sendall(message)
    answer = b""
    while len(answer) < len(message):
        data = connected.recv(len(message))
        assert data, "the guest hung up"
        answer += data
    return answer


@contextmanager
def host_listener(guest: Machine, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(20)
        listener.bind(f"{guest.uds}_{port}")
        listener.listen()
        yield listener


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def settles(measure: object, limit: float) -> bool:
    """Whether a count comes down to `limit` within two seconds."""
    assert callable(measure)
    for _ in range(200):
        if measure() <= limit:
            return True
        time.sleep(0.01)
    return False


def trickle(connected: socket.socket) -> None:
    for _ in range(1000):
        connected.sendall(bytes(1000))
        time.sleep(0.001)


def send_until_blocked(connected: socket.socket, data: bytes) -> int:
    sent = 0
    with suppress(TimeoutError):
        while sent < len(data):
            sent += connected.send(data[sent : sent + BLOCK])
    return sent


def test_guest_echoes(guest: Machine) -> None:
    with guest.connect(ECHO) as connected:
        assert exchange(connected, b"hello") == b"hello"


def test_qemu_is_nobody_and_has_its_filter(guest: Machine) -> None:
    assert guest.process is not None
    status = Path(f"/proc/{guest.process.pid}/status").read_text()
    assert "Seccomp_filters:\t1\n" in status
    if os.getuid() == 0:
        assert "Uid:\t65534\t65534\t65534\t65534\n" in status


def test_host_ports_count_up(guest: Machine) -> None:
    first = guest.device.next_host_port
    guest.connect(ECHO).close()
    assert guest.device.next_host_port == first + 1


def test_64_mib_to_the_guest_arrive_whole(guest: Machine) -> None:
    with guest.command("check") as connected:
        for block in pattern(64 * MIB):
            connected.sendall(block)
        connected.shutdown(socket.SHUT_WR)
        assert read_all(connected) == b"ok %d\n" % (64 * MIB)


def test_64_mib_from_the_guest_arrive_whole(guest: Machine) -> None:
    with guest.command(f"source {64 * MIB}") as connected:
        reader = connected.makefile("rb")
        for block in pattern(64 * MIB):
            assert reader.read(BLOCK) == block
        assert reader.read() == b""


def test_refused_port_closes_the_connection(guest: Machine) -> None:
    with pytest.raises(ConnectionRefusedError):
        guest.connect(4242)


@pytest.mark.parametrize(
    "greeting", [b"HELLO 1001\n", b"CONNECT\n", b"CONNECT x\n", b"CONNECT 4294967296\n", b"A" * 40]
)
def test_bad_greeting_closes_the_connection(guest: Machine, greeting: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(5)
        connected.connect(str(guest.uds))
        connected.sendall(greeting)
        with suppress(ConnectionResetError):  # it may close without reading to the end
            assert connected.recv(10) == b""


def test_greeting_in_pieces_with_data_behind_it(guest: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(5)
        connected.connect(str(guest.uds))
        for piece in (b"conn", b"ect 10", b"01\nearly"):
            connected.sendall(piece)
            time.sleep(0.02)
        reader = connected.makefile("rb")
        assert reader.readline().startswith(b"OK ")
        assert reader.read(5) == b"early"


def test_guest_connects_to_the_host(guest: Machine) -> None:
    with host_listener(guest, 6000) as listener, guest.command("dial 6000") as control:
        accepted, _ = listener.accept()
        with accepted:
            assert exchange(accepted, b"from the host") == b"from the host"
            accepted.shutdown(socket.SHUT_WR)
            assert read_all(accepted) == b""
        assert read_all(control) == b"closed 0\n"


def test_guest_is_refused_where_nobody_listens(guest: Machine) -> None:
    with guest.command("dial 6999") as control:
        assert read_all(control) == ECONNRESET


def test_guest_waits_for_a_busy_listener(guest: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(f"{guest.uds}_6001")
        listener.listen(0)
        first.connect(f"{guest.uds}_6001")
        with guest.command("dial 6001") as control:
            time.sleep(0.2)
            listener.accept()[0].close()
            second, _ = listener.accept()
            assert exchange(second, b"at last") == b"at last"
            second.close()
            assert read_all(control) == b"closed 0\n"


def test_many_connections_at_once(guest: Machine) -> None:
    connections = [guest.connect(ECHO) for _ in range(200)]
    for number, connected in enumerate(connections):
        connected.sendall(b"%04d" % number * 1000)
    for number, connected in enumerate(connections):
        assert exchange(connected, b"") == b""
        reader = connected.makefile("rb")
        assert reader.read(4000) == b"%04d" % number * 1000
        reader.close()
        connected.close()


def test_a_thousand_connections_leave_nothing_behind(guest: Machine) -> None:
    def churn(count: int) -> None:
        for _ in range(count):
            with guest.connect(ECHO) as connected:
                assert exchange(connected, b"x") == b"x"

    churn(50)
    files, memory_mib = open_files(), resident_mib()
    churn(1000)
    assert settles(open_files, files + 2)
    assert resident_mib() < memory_mib + 4


def test_guest_that_stops_writing_still_reads(guest: Machine) -> None:
    size = 3 * MIB + 5
    with host_listener(guest, 6002) as listener, guest.command(f"talk {size} 6002") as connected:
        assert read_all(connected) == b"".join(pattern(size))
        for block in pattern(size):
            connected.sendall(block)
        connected.shutdown(socket.SHUT_WR)
        verdict, _ = listener.accept()
        assert read_all(verdict) == b"ok %d\n" % size
        verdict.close()


def test_host_that_writes_and_closes_loses_nothing(guest: Machine) -> None:
    size = 2 * MIB + 3
    with host_listener(guest, 6003) as listener:
        with guest.command("talk 0 6003") as connected:
            for block in pattern(size):
                connected.sendall(block)
        verdict, _ = listener.accept()
        assert read_all(verdict) == b"ok %d\n" % size
        verdict.close()


def test_guest_that_stops_reading_breaks_the_hosts_pipe(guest: Machine) -> None:
    with guest.command("refuse") as connected:
        with pytest.raises(BrokenPipeError):
            trickle(connected)
        assert read_all(connected) == b"ok 0\n"


def test_slow_host_gets_all_of_a_guest_that_is_long_gone(guest: Machine) -> None:
    size = 300 * 1024  # fits socket and backlog, so that the guest closes early; longer than the shutdown timeout
    with guest.command(f"source {size}") as connected:
        time.sleep(2.5)
        assert read_all(connected) == b"".join(pattern(size))


def test_slow_guest_holds_the_host_back(guest: Machine) -> None:
    memory_mib = resident_mib()
    with guest.command("slow 1000") as connected:
        connected.settimeout(0.3)
        data = b"".join(pattern(2 * MIB))
        sent = send_until_blocked(connected, data)
        assert sent < MIB
        assert resident_mib() < memory_mib + 8
        connected.settimeout(20)
        connected.sendall(data[sent:])
        connected.shutdown(socket.SHUT_WR)
        assert read_all(connected) == b"ok %d\n" % (2 * MIB)


def test_slow_host_holds_the_guest_back(guest: Machine) -> None:
    memory_mib = resident_mib()
    with guest.command(f"source {32 * MIB}") as connected:
        time.sleep(0.5)
        assert resident_mib() < memory_mib + 4
        reader = connected.makefile("rb")
        for block in pattern(32 * MIB):
            assert reader.read(BLOCK) == block


def test_both_directions_at_full_speed(guest: Machine) -> None:
    size = 16 * MIB
    with guest.connect(ECHO) as connected:

        def send() -> None:
            for block in pattern(size):
                connected.sendall(block)

        sender = threading.Thread(target=send)
        sender.start()
        reader = connected.makefile("rb")
        for block in pattern(size):
            assert reader.read(BLOCK) == block
        sender.join()


def test_connections_survive_a_pause(guest: Machine) -> None:
    with guest.connect(ECHO) as connected:
        exchange(connected, b"before")
        guest.qmp("stop")
        connected.sendall(b"during")
        late = socket.socket(socket.AF_UNIX)
        late.settimeout(10)
        late.connect(str(guest.uds))
        late.sendall(b"CONNECT %d\n" % ECHO)
        time.sleep(2.5)  # longer than the connect timeout: paused time does not count
        guest.qmp("cont")
        assert connected.recv(6) == b"during"
        assert exchange(connected, b"after") == b"after"
        assert late.recv(3) == b"OK "
        late.close()


def test_connection_1024_is_refused_and_the_others_work(guest: Machine) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip(f"the hard limit of open files is {hard}; two ends of 1,023 connections need about 2,100")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    connections: list[socket.socket] = []
    try:
        for _ in range(MAX_CONNECTIONS):
            connections.append(guest.connect(ECHO))  # noqa: PERF401 - what was opened must be closed if one fails
        with pytest.raises(ConnectionRefusedError):
            guest.connect(ECHO)
        for connected in (connections[0], connections[-1]):
            assert exchange(connected, b"still here") == b"still here"
    finally:
        for connected in connections:
            connected.close()
        assert settles(open_files, 100)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    guest.connect(ECHO).close()


def test_a_reset_guest_starts_afresh(directory: Path, initrd: Path) -> None:
    with vsock_machine.machine(directory, "reset.sock") as made:
        made.memory = directory / "reset-memory"
        made.boot(initrd)
        made.wait_ready()
        connected = made.connect(ECHO)
        exchange(connected, b"x")
        made.qmp("set-action", reboot="reset")
        made.qmp("system_reset")
        assert connected.recv(1) == b""
        connected.close()
        made.wait_ready()
        with made.connect(ECHO) as again:
            assert exchange(again, b"anew") == b"anew"


def test_forks_of_a_snapshot_answer(directory: Path, initrd: Path) -> None:
    state = directory / "state"
    with vsock_machine.machine(directory, "template.sock") as template:
        template.memory = directory / "template-memory"
        template.boot(initrd)
        template.wait_ready()
        held = template.connect(ECHO)
        exchange(held, b"x")
        template.save(state)
        held.close()
        template.end()
        with (
            vsock_machine.machine(directory, "a.sock", memory_of=template) as one,
            vsock_machine.machine(directory, "b.sock", memory_of=template) as other,
        ):
            for fork in (one, other):
                fork.restore(state)
                # At once, and no knock in vain: whoever comes before the guest can take it waits.
                with fork.connect(ECHO) as connected:
                    assert exchange(connected, b"early") == b"early"
            for fork in (one, other):
                with fork.connect(ECHO) as connected:
                    assert exchange(connected, b"forked") == b"forked"
                with fork.command("check") as connected:
                    for block in pattern(8 * MIB):
                        connected.sendall(block)
                    connected.shutdown(socket.SHUT_WR)
                    assert read_all(connected) == b"ok %d\n" % (8 * MIB)
                with host_listener(fork, 6000) as listener, fork.command("dial 6000") as control:
                    listener.accept()[0].close()
                    assert read_all(control) == b"closed 0\n"


def test_a_snapshotted_guest_that_goes_on_keeps_its_connections(directory: Path, initrd: Path) -> None:
    with vsock_machine.machine(directory, "goeson.sock") as made:
        made.memory = directory / "goeson-memory"
        made.boot(initrd)
        made.wait_ready()
        with made.connect(ECHO) as connected:
            exchange(connected, b"before")
            made.save(directory / "goeson-state")
            made.qmp("cont")
            assert exchange(connected, b"after") == b"after"


def test_broken_ring_disables_the_device_until_the_driver_starts_again(directory: Path, initrd: Path) -> None:
    with vsock_machine.machine(directory, "broken.sock") as made:
        made.memory = directory / "broken-memory"
        made.boot(initrd)
        made.wait_ready()
        connected = made.connect(ECHO)
        backend = made.device._backend
        assert backend is not None
        _, avail, _ = backend.control.vrings[0].layout
        backend.control.memory.write(avail, b"\0\0\x34\x12")
        connected.sendall(b"anything that needs a receive buffer")
        with suppress(ConnectionResetError):
            assert connected.recv(1) == b""
        connected.close()
        assert made.device.fault is not None
        with pytest.raises(ConnectionRefusedError):
            made.connect(ECHO)
        made.qmp("set-action", reboot="reset")
        made.qmp("system_reset")
        made.wait_ready()
        assert made.device.fault is None


def test_qemus_death_ends_every_connection(directory: Path, initrd: Path) -> None:
    with vsock_machine.machine(directory, "death.sock") as made:
        made.memory = directory / "death-memory"
        made.boot(initrd)
        made.wait_ready()
        with made.connect(ECHO) as connected:
            exchange(connected, b"x")
            assert made.process is not None
            made.process.kill()
            assert connected.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            made.connect(ECHO)
