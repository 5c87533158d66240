"""The state of processors and devices, out of a QEMU and into another. It passes through memory only."""

from __future__ import annotations

import os
import time

from firkin.engine.qmp import TIMEOUT_S, Qmp, QmpError
from firkin.errors import EngineError

_SIZE_LIMIT = 64 << 20  # a busy guest with many devices has one or two hundred kilobytes
_POLL_S = 0.0005


def save(qmp: Qmp) -> bytes:
    """What a stopped QEMU knows besides memory.

    Raises:
        EngineError: it refuses, or wrote more than can be true.
        OSError: memory is short.
    """
    fd = os.memfd_create("devices", os.MFD_CLOEXEC)
    try:
        # QEMU compares the access mode with the one that it wants.
        writable = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            number = qmp.execute("add-fd", fd=writable)["fdset-id"]
        finally:
            os.close(writable)
        try:
            # Made for Xen, it needs none: everything but memory and disks. `live` keeps the disks in use.
            qmp.execute("xen-save-devices-state", filename=f"/dev/fdset/{number}", live=False)
        finally:
            qmp.execute("remove-fd", fdset_id=number)
        size = os.fstat(fd).st_size
        if size > _SIZE_LIMIT:
            raise EngineError(f"QEMU's device state of {size} bytes is too large")
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def load(qmp: Qmp, devices: bytes) -> None:
    """Put the state into a QEMU that waits for it; it stays stopped.

    Raises:
        EngineError: QEMU does not take it, and ends.
        OSError: memory is short.
    """
    fd = os.memfd_create("devices", os.MFD_CLOEXEC)
    try:
        os.pwrite(fd, devices, 0)
        qmp.execute("getfd", fd=fd, fdname="devices")
    finally:
        os.close(fd)
    qmp.execute("migrate-incoming", uri="fd:devices")
    deadline = time.monotonic() + TIMEOUT_S
    while qmp.execute("query-status")["status"] == "inmigrate":
        if time.monotonic() > deadline:
            raise EngineError("QEMU did not load the device state in time")
        time.sleep(_POLL_S)


def memory_address(qmp: Qmp) -> int:
    """Where QEMU has the first byte of guest memory mapped. Raises: EngineError."""
    text = qmp.execute("human-monitor-command", command_line="gpa2hva 0")
    try:
        return int(text.rpartition(" is ")[2], 16)
    except (AttributeError, ValueError) as error:
        raise EngineError(f"QEMU does not tell where guest memory is: {text!r}") from error


def event_ring(qmp: Qmp) -> int | None:
    """Guest address at which the driver of the vsock device offers buffers for events; None where QEMU does not tell.

    Raises:
        EngineError: QEMU is ending.
    """
    from firkin.engine.vsock.device import DEVICE_ID
    from firkin.engine.vsock.notice import EVENT_QUEUE

    path = f"/machine/peripheral/{DEVICE_ID}"
    try:
        found = qmp.execute("x-query-virtio-queue-status", path=path, queue=EVENT_QUEUE)["vring-avail"]
    except (QmpError, KeyError):  # before 7.2
        return None
    return found or None
