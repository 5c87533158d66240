"""The kernel's vhost control plane: the ioctls that QEMU makes on its vhost descriptor, and the state they set.

Numbers and refusals follow linux/vhost.h and drivers/vhost. Nothing here serves a ring: a listener is told when the
device starts and stops and when a doorbell changes.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import ClassVar, Protocol

from firkin.engine.vsock.memory import ProcessMemory, Region, RingBroken
from firkin.engine.vsock.ring import EVENT_IDX, INDIRECT_DESC, NOTIFY_ON_EMPTY, SplitRing
from firkin.engine.vsock.vring import NO_FD, RX, Vring

IOCTL_TYPE = 0xAF
ANY_LAYOUT = 1 << 27
LOG_ALL = 1 << 26  # without it QEMU refuses to migrate, and so to snapshot
VERSION_1 = 1 << 32
FEATURES = VERSION_1 | EVENT_IDX | INDIRECT_DESC | NOTIFY_ON_EMPTY | ANY_LAYOUT | LOG_ALL

MAX_REGIONS = 64
MAX_RING_SIZE = 1024

_U32, _U64, _INT = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<i")
_PAIR, _INDEX_FD = struct.Struct("<II"), struct.Struct("<Ii")
_VRING_ADDR = struct.Struct("<IIQQQQ")
_REGION = struct.Struct("<QQQQ")


class Refused(Exception):
    """The kernel would answer this ioctl with `errno`."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class Listener(Protocol):
    """Who serves the rings."""

    def started(self) -> None: ...

    def stopped(self) -> None: ...

    def kick_changed(self, index: int, old_fd: int) -> None:
        """The old doorbell, possibly NO_FD, is about to be closed."""


def _iow(number: int, size: int) -> int:
    """An ioctl number whose argument QEMU fills (_IOW)."""
    return 1 << 30 | size << 16 | IOCTL_TYPE << 8 | number


def _ior(number: int, size: int) -> int:
    """An ioctl number whose argument we fill (_IOR)."""
    return 2 << 30 | size << 16 | IOCTL_TYPE << 8 | number


class VhostControl:
    """The state behind QEMU's vhost descriptor, and the answer to each ioctl."""

    def __init__(self, memory: ProcessMemory, fetch_fd: Callable[[int], int], guest_cid: int) -> None:
        """`fetch_fd` copies one of QEMU's eventfds into this process; it raises OSError."""
        self.memory = memory
        self.listener: Listener | None = None
        self.guest_cid = guest_cid
        self.features = 0
        self.running = False
        self.vrings = (Vring(), Vring())
        self._fetch_fd = fetch_fd
        self._log_base: int | None = None

    def answer(self, request: int, argument: int) -> int:
        """Carry out one ioctl whose third argument is `argument`; 0, or the errno to fail it with."""
        handler = self._HANDLERS.get(request)
        if handler is None:
            return errno.ENOTTY
        try:
            handler(self, argument)
        except Refused as refusal:
            return refusal.errno
        except RingBroken:
            return errno.EFAULT
        except OSError as reason:
            return reason.errno or errno.EIO
        return 0

    def close(self) -> None:
        for vring in self.vrings:
            for name, fd in vring.fds.items():
                vring.fds[name] = NO_FD
                if fd != NO_FD:
                    os.close(fd)

    def _accept(self, argument: int) -> None:
        """An ioctl without effect here: the one QEMU process that can reach us owns the device."""

    def _get_features(self, argument: int) -> None:
        self.memory.write(argument, _U64.pack(FEATURES))

    def _set_features(self, argument: int) -> None:
        features = self._read_one(_U64, argument)
        if features & ~FEATURES:
            raise Refused(errno.EOPNOTSUPP)
        self.features = features
        self._apply_log()

    def _get_backend_features(self, argument: int) -> None:
        self.memory.write(argument, _U64.pack(0))

    def _set_backend_features(self, argument: int) -> None:
        if self._read_one(_U64, argument):
            raise Refused(errno.EOPNOTSUPP)

    def _set_mem_table(self, argument: int) -> None:
        count, padding = self._read(_PAIR, argument)
        if padding:
            raise Refused(errno.EOPNOTSUPP)
        if count > MAX_REGIONS:
            raise Refused(errno.E2BIG)
        rows = _REGION.iter_unpack(self.memory.read(argument + _PAIR.size, count * _REGION.size))
        self.memory.regions = tuple(Region(*row[:3]) for row in rows)

    def _set_log_base(self, argument: int) -> None:
        self._log_base = self._read_one(_U64, argument)
        self._apply_log()

    def _apply_log(self) -> None:
        self.memory.log_address = self._log_base if self.features & LOG_ALL else None

    def _set_vring_num(self, argument: int) -> None:
        vring, size = self._vring_and_value(argument)
        if self.running:
            raise Refused(errno.EBUSY)
        if not 0 < size <= MAX_RING_SIZE or size & (size - 1):
            raise Refused(errno.EINVAL)
        vring.size = size

    def _set_vring_base(self, argument: int) -> None:
        vring, base = self._vring_and_value(argument)
        if self.running:
            raise Refused(errno.EBUSY)
        if base > 0xFFFF:
            raise Refused(errno.EINVAL)
        vring.base = base

    def _get_vring_base(self, argument: int) -> None:
        index = self._read_one(_U32, argument)
        self.memory.write(argument, _PAIR.pack(index, self._vring(index).next_avail()))

    def _set_vring_addr(self, argument: int) -> None:
        """Also comes while the device runs, when a migration switches dirty logging on or off."""
        index, flags, desc, used, avail, _log = self._read(_VRING_ADDR, argument)
        if flags & ~1:
            raise Refused(errno.EOPNOTSUPP)
        if desc % 16 or avail % 2 or used % 4:
            raise Refused(errno.EINVAL)
        vring = self._vring(index)
        vring.layout = (desc, avail, used)
        if vring.ring is not None:
            vring.ring.layout = vring.ring_layout()

    def _set_vring_endian(self, argument: int) -> None:
        if self._vring_and_value(argument)[1]:  # 1 is big-endian: no guest of an x86 host
            raise Refused(errno.EINVAL)

    def _set_vring_kick(self, argument: int) -> None:
        self._set_fd(argument, "kick")

    def _set_vring_call(self, argument: int) -> None:
        self._set_fd(argument, "call")

    def _set_vring_err(self, argument: int) -> None:
        """Only checked. All that QEMU does when this bell rings is print a line, and a guest that QEMU 7.2 resets
        after it does not boot again."""
        self._vring(self._read(_INDEX_FD, argument)[0])

    def _set_fd(self, argument: int, name: str) -> None:
        index, number = self._read(_INDEX_FD, argument)
        vring = self._vring(index)
        old, vring.fds[name] = vring.fds[name], NO_FD if number == NO_FD else self._fetch_fd(number)
        if name == "kick" and self.listener is not None:
            self.listener.kick_changed(index, old)
        if old != NO_FD:
            os.close(old)

    def _set_guest_cid(self, argument: int) -> None:
        guest_cid = self._read_one(_U64, argument)
        if not 2 < guest_cid < 0xFFFFFFFF:
            raise Refused(errno.EINVAL)
        self.guest_cid = guest_cid

    def _set_running(self, argument: int) -> None:
        wanted = bool(self._read_one(_INT, argument))
        if wanted and not self.running:
            self._start()
        elif self.running and not wanted:
            self._stop()

    def _start(self) -> None:
        self._create_rings()
        self.running = True
        if self.listener is not None:
            self.listener.started()

    def _create_rings(self) -> None:
        rings = [
            SplitRing(
                self.memory,
                vring.ring_layout(),
                device_writes=index == RX,
                features=self.features,
                next_avail=vring.base,
            )
            for index, vring in enumerate(self.vrings)
        ]
        for vring, ring in zip(self.vrings, rings, strict=True):
            vring.ring = ring

    def _stop(self) -> None:
        self.running = False
        for vring in self.vrings:
            vring.base, vring.ring = vring.next_avail(), None
        if self.listener is not None:
            self.listener.stopped()

    def _vring(self, index: int) -> Vring:
        if index >= len(self.vrings):
            raise Refused(errno.ENOBUFS)
        return self.vrings[index]

    def _vring_and_value(self, argument: int) -> tuple[Vring, int]:
        index, value = self._read(_PAIR, argument)
        return self._vring(index), value

    def _read(self, layout: struct.Struct, argument: int) -> tuple[int, ...]:
        return layout.unpack(self.memory.read(argument, layout.size))

    def _read_one(self, layout: struct.Struct, argument: int) -> int:
        return self._read(layout, argument)[0]

    _HANDLERS: ClassVar[dict[int, Callable[[VhostControl, int], None]]] = {
        _ior(0x00, 8): _get_features,
        _iow(0x00, 8): _set_features,
        IOCTL_TYPE << 8 | 0x01: _accept,  # SET_OWNER
        _iow(0x03, 8): _set_mem_table,
        _iow(0x04, 8): _set_log_base,
        _iow(0x07, 4): _accept,  # SET_LOG_FD: an eventfd that QEMU never waits for
        _iow(0x10, 8): _set_vring_num,
        _iow(0x11, 40): _set_vring_addr,
        _iow(0x12, 8): _set_vring_base,
        _ior(0x12, 8) | 1 << 30: _get_vring_base,
        _iow(0x13, 8): _set_vring_endian,
        _iow(0x20, 8): _set_vring_kick,
        _iow(0x21, 8): _set_vring_call,
        _iow(0x22, 8): _set_vring_err,
        _iow(0x23, 8): _accept,  # SET_VRING_BUSYLOOP_TIMEOUT
        _iow(0x25, 8): _set_backend_features,
        _ior(0x26, 8): _get_backend_features,
        _iow(0x60, 8): _set_guest_cid,
        _iow(0x61, 4): _set_running,
    }
