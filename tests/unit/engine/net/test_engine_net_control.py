"""What QEMU is answered when it hands an interface's rings and tap to the engine."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from firkin.engine.net.control import MERGEABLE, NetControl
from firkin.engine.vhost.memory import Memory, ProcessMemory, RingBroken

SET_FEATURES, SET_NUM, SET_ADDR, SET_BACKEND = 0x4008AF00, 0x4008AF10, 0x4028AF11, 0x4008AF30
GET_FEATURES, GET_IFF = 0x8008AF00, 0x800454D2
ARGUMENT, DESC, AVAIL, USED = 0x100, 0x1000, 0x2000, 0x3000


class Listener:
    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self) -> None:
        self.events.append("started")

    def stopped(self) -> None:
        self.events.append("stopped")

    def kick_changed(self, index: int, old_fd: int) -> None: ...

    def disable(self, reason: str) -> None:
        self.events.append("disabled")


class StandIn:
    """Answers one question of QEMU's about the tap."""

    def answer(self, request: int, argument: int, memory: Memory) -> int:
        if request != GET_IFF:
            return errno.ENOTTY
        if argument != ARGUMENT:
            raise RingBroken("nowhere")
        return 0


class Qemu:
    def __init__(self) -> None:
        self.fd = os.memfd_create("memory")
        os.truncate(self.fd, 0x10000)
        self.listener = Listener()
        self.control = NetControl(ProcessMemory(self.fd), os.dup, self.listener, StandIn())

    def ioctl(self, request: int, data: bytes = b"", argument: int = ARGUMENT) -> int:
        os.pwrite(self.fd, data, ARGUMENT)
        return self.control.answer(request, argument)

    def backend(self, index: int, fd: int) -> int:
        return self.ioctl(SET_BACKEND, struct.pack("<Ii", index, fd))


@pytest.fixture
def qemu() -> Iterator[Qemu]:
    made = Qemu()
    for index in (0, 1):
        assert made.ioctl(SET_NUM, struct.pack("<II", index, 128)) == 0
        assert made.ioctl(SET_ADDR, struct.pack("<IIQQQQ", index, 0, DESC, USED, AVAIL, 0)) == 0
    yield made
    made.control.close()
    os.close(made.fd)


def test_frames_may_come_in_several_buffers(qemu: Qemu) -> None:
    assert qemu.ioctl(GET_FEATURES) == 0
    assert struct.unpack("<Q", os.pread(qemu.fd, 8, ARGUMENT))[0] & MERGEABLE


def test_a_ring_runs_while_it_has_a_tap(qemu: Qemu) -> None:
    for index, fd in ((0, 5), (1, 5), (1, 5), (0, -1), (0, -1), (1, -1)):
        assert qemu.backend(index, fd) == 0
    assert qemu.listener.events == ["started", "started", "stopped", "stopped"]


@pytest.mark.parametrize(
    ("request_number", "data"),
    [
        (SET_NUM, struct.pack("<II", 0, 3)),
        (SET_ADDR, struct.pack("<IIQQQQ", 0, 0, DESC + 8, USED, AVAIL, 0)),
        (SET_FEATURES, struct.pack("<Q", 1 << 50)),
        (SET_BACKEND, struct.pack("<Ii", 7, 5)),
    ],
)
def test_what_a_guest_sets_up_wrongly_disables_its_interface_and_is_never_refused(
    qemu: Qemu, request_number: int, data: bytes
) -> None:
    assert qemu.ioctl(request_number, data) == 0
    assert qemu.listener.events == ["disabled"]


def test_a_ring_outside_memory_disables_the_interface(qemu: Qemu) -> None:
    qemu.ioctl(SET_ADDR, struct.pack("<IIQQQQ", 0, 0, DESC, 1 << 40, AVAIL, 0))
    assert qemu.backend(0, 5) == 0
    assert qemu.listener.events == ["disabled"]


def test_questions_about_the_tap_are_answered_as_they_are(qemu: Qemu) -> None:
    assert qemu.ioctl(GET_IFF) == 0
    assert qemu.ioctl(GET_IFF, argument=1) == errno.EFAULT
    assert qemu.ioctl(0x400454D9) == errno.ENOTTY
    assert qemu.listener.events == []
