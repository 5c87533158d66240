"""The vhost control plane, with vsock's own ioctls: each answered as the kernel would."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from firkin.engine.vhost.control import FEATURES, LOG_ALL
from firkin.engine.vhost.memory import ProcessMemory, Region, Span, cut
from firkin.engine.vhost.vring import NO_FD
from firkin.engine.vsock.control import VsockControl

GET_FEATURES, SET_FEATURES, SET_OWNER = 0x8008AF00, 0x4008AF00, 0xAF01
SET_MEM_TABLE, SET_LOG_BASE = 0x4008AF03, 0x4008AF04
SET_NUM, SET_ADDR, SET_BASE, GET_BASE = 0x4008AF10, 0x4028AF11, 0x4008AF12, 0xC008AF12
SET_KICK, SET_CALL, SET_ERR = 0x4008AF20, 0x4008AF21, 0x4008AF22
SET_CID, SET_RUNNING = 0x4008AF60, 0x4004AF61

ARGUMENT = 0x100
DESC, AVAIL, USED, LOG = 0x1000, 0x2000, 0x3000, 0x8000


class Recorder:
    def __init__(self) -> None:
        self.events: list[object] = []

    def started(self) -> None:
        self.events.append("started")

    def stopped(self) -> None:
        self.events.append("stopped")

    def kick_changed(self, index: int, old_fd: int) -> None:
        self.events.append((index, old_fd))


class Qemu:
    """A process whose memory is a file: addresses are offsets."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("memory")
        os.truncate(self.fd, 0x20000)
        self.memory = ProcessMemory(self.fd)
        self.recorder = Recorder()
        self.control = VsockControl(self.memory, os.dup, self.recorder, guest_cid=3)

    def ioctl(self, request: int, data: bytes = b"", *, reply_size: int = 0) -> bytes:
        """Make one that must succeed."""
        assert self.errno(request, data) == 0
        return os.pread(self.fd, reply_size, ARGUMENT)

    def errno(self, request: int, data: bytes = b"") -> int:
        os.pwrite(self.fd, data, ARGUMENT)
        return self.control.answer(request, ARGUMENT)

    def prepare(self) -> None:
        self.ioctl(SET_OWNER)
        self.ioctl(SET_FEATURES, struct.pack("<Q", FEATURES & ~LOG_ALL))
        for index in (0, 1):
            self.ioctl(SET_NUM, struct.pack("<II", index, 128))
            self.ioctl(SET_BASE, struct.pack("<II", index, 7 + index))
            self.ioctl(SET_ADDR, struct.pack("<IIQQQQ", index, 0, DESC, USED, AVAIL, 0))

    def run(self, on: bool) -> None:
        self.ioctl(SET_RUNNING, struct.pack("<i", on))

    def base(self, index: int) -> int:
        reply = self.ioctl(GET_BASE, struct.pack("<II", index, 0), reply_size=8)
        value: int = struct.unpack("<II", reply)[1]
        return value


@pytest.fixture
def qemu() -> Iterator[Qemu]:
    made = Qemu()
    yield made
    made.control.close()
    os.close(made.fd)


def test_features_let_qemu_migrate(qemu: Qemu) -> None:
    (features,) = struct.unpack("<Q", qemu.ioctl(GET_FEATURES, reply_size=8))
    assert features & LOG_ALL
    assert features == FEATURES


def test_features_that_were_not_offered_are_refused(qemu: Qemu) -> None:
    assert qemu.errno(SET_FEATURES, struct.pack("<Q", 1 << 34)) == errno.EOPNOTSUPP


def test_unknown_ioctl_is_refused(qemu: Qemu) -> None:
    assert qemu.errno(0x4008AF70) == errno.ENOTTY


def test_argument_outside_memory_is_a_fault(qemu: Qemu) -> None:
    assert qemu.control.answer(SET_FEATURES, 1 << 40) == errno.EFAULT
    assert qemu.control.answer(SET_FEATURES, (1 << 64) - 1) == errno.EFAULT


def test_memory_table_maps_guest_addresses(qemu: Qemu) -> None:
    table = (
        struct.pack("<II", 2, 0) + struct.pack("<QQQQ", 0, 0x1000, 0x4000, 0) + struct.pack("<QQQQ", 0x1000, 16, 0, 0)
    )
    qemu.ioctl(SET_MEM_TABLE, table)
    assert qemu.memory.regions == (Region(0, 0x1000, 0x4000), Region(0x1000, 16, 0))
    assert qemu.memory.spans(0xFF0, 32) == [Span(0x4FF0, 16), Span(0, 16)]


@pytest.mark.parametrize(("header", "refusal"), [((65, 0), errno.E2BIG), ((1, 1), errno.EOPNOTSUPP)])
def test_bad_memory_table_is_refused(qemu: Qemu, header: tuple[int, int], refusal: int) -> None:
    assert qemu.errno(SET_MEM_TABLE, struct.pack("<II", *header)) == refusal


@pytest.mark.parametrize("size", [0, 3, 2048, 0xFFFFFFFF])
def test_bad_ring_size_is_refused(qemu: Qemu, size: int) -> None:
    assert qemu.errno(SET_NUM, struct.pack("<II", 0, size)) == errno.EINVAL


@pytest.mark.parametrize("request_number", [SET_NUM, SET_BASE, GET_BASE, SET_ADDR, SET_KICK, SET_CALL, SET_ERR])
def test_third_ring_does_not_exist(qemu: Qemu, request_number: int) -> None:
    assert qemu.errno(request_number, struct.pack("<II", 2, 0) + bytes(32)) == errno.ENOBUFS


def test_unaligned_ring_is_refused(qemu: Qemu) -> None:
    assert qemu.errno(SET_ADDR, struct.pack("<IIQQQQ", 0, 0, DESC + 8, USED, AVAIL, 0)) == errno.EINVAL


@pytest.mark.parametrize("cid", [0, 2, 0xFFFFFFFF, 1 << 32])
def test_reserved_cid_is_refused(qemu: Qemu, cid: int) -> None:
    assert qemu.errno(SET_CID, struct.pack("<Q", cid)) == errno.EINVAL


def test_cid_is_set(qemu: Qemu) -> None:
    qemu.ioctl(SET_CID, struct.pack("<Q", 42))
    assert qemu.control.guest_cid == 42


def test_device_starts_and_stops_once(qemu: Qemu) -> None:
    qemu.prepare()
    for on in (True, True, False, False, True):
        qemu.run(on)
    assert qemu.recorder.events == ["started", "stopped", "started"]


def test_ring_position_survives_a_stop(qemu: Qemu) -> None:
    qemu.prepare()
    qemu.run(True)
    assert qemu.base(1) == 8
    ring = qemu.control.vrings[1].ring
    assert ring is not None
    ring.next_avail = 20
    assert qemu.base(1) == 20
    qemu.run(False)
    assert (qemu.base(0), qemu.base(1)) == (7, 20)
    qemu.run(True)
    again = qemu.control.vrings[1].ring
    assert again is not None
    assert again.next_avail == 20


def test_running_ring_keeps_its_size_and_position(qemu: Qemu) -> None:
    qemu.prepare()
    qemu.run(True)
    assert qemu.errno(SET_NUM, struct.pack("<II", 0, 64)) == errno.EBUSY
    assert qemu.errno(SET_BASE, struct.pack("<II", 0, 0)) == errno.EBUSY


def test_ring_outside_memory_does_not_start(qemu: Qemu) -> None:
    qemu.prepare()
    qemu.ioctl(SET_ADDR, struct.pack("<IIQQQQ", 0, 0, DESC, 1 << 40, AVAIL, 0))
    assert qemu.errno(SET_RUNNING, struct.pack("<i", 1)) == errno.EFAULT
    assert not qemu.control.running
    assert qemu.recorder.events == []


def test_doorbells_are_copied_replaced_and_taken_back(qemu: Qemu) -> None:
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    qemu.ioctl(SET_KICK, struct.pack("<Ii", 1, bell))
    first = qemu.control.vrings[1].fds["kick"]
    assert os.fstat(first).st_ino == os.fstat(bell).st_ino
    qemu.ioctl(SET_KICK, struct.pack("<Ii", 1, -1))
    assert qemu.control.vrings[1].fds["kick"] == NO_FD
    assert qemu.recorder.events == [(1, NO_FD), (1, first)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
    os.close(bell)


def test_interrupt_rings_qemus_bell(qemu: Qemu) -> None:
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    qemu.ioctl(SET_CALL, struct.pack("<Ii", 0, bell))
    qemu.control.vrings[0].signal("call")
    qemu.control.vrings[1].signal("call")
    assert os.eventfd_read(bell) == 1
    os.close(bell)


def test_full_bell_is_loud_enough(qemu: Qemu) -> None:
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    os.eventfd_write(bell, 2**64 - 2)
    qemu.ioctl(SET_CALL, struct.pack("<Ii", 0, bell))
    qemu.control.vrings[0].signal("call")
    os.close(bell)


def test_bad_doorbell_is_refused(qemu: Qemu) -> None:
    assert qemu.errno(SET_KICK, struct.pack("<Ii", 0, 9999)) == errno.EBADF


def test_writes_are_logged_while_a_migration_runs(qemu: Qemu) -> None:
    qemu.ioctl(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0x10000, 0x10000, 0, 0))
    qemu.ioctl(SET_LOG_BASE, struct.pack("<Q", LOG))
    qemu.memory.write(0x1000, b"before")
    qemu.ioctl(SET_FEATURES, struct.pack("<Q", FEATURES))
    qemu.memory.write(0x2FFF, b"on two pages")
    qemu.memory.write(0x8FFF, b"x")
    qemu.ioctl(SET_FEATURES, struct.pack("<Q", FEATURES & ~LOG_ALL))
    qemu.memory.write(0x5000, b"after")
    bitmap = int.from_bytes(os.pread(qemu.fd, 8, LOG), "little")
    assert {page for page in range(64) if bitmap >> page & 1} == {0x12, 0x13, 0x18}


def test_cut_divides_a_buffer() -> None:
    spans = [Span(0, 10), Span(100, 10)]
    assert cut(spans, 10) == ([Span(0, 10)], [Span(100, 10)])
    assert cut(spans, 4) == ([Span(0, 4)], [Span(4, 6), Span(100, 10)])
    assert cut(spans, 15) == ([Span(0, 10), Span(100, 5)], [Span(105, 5)])
    assert cut(spans, 99) == (spans, [])
