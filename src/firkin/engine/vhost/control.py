"""The kernel's vhost control plane: the ioctls that QEMU makes on a vhost descriptor, and the state they set.

Numbers and refusals follow linux/vhost.h and drivers/vhost. What every device has is here; a kind of device adds its
own ioctls to `HANDLERS`. Nothing here serves a ring: a listener is told when rings start and stop and when a doorbell
changes.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

from firkin.engine.vhost.memory import ProcessMemory, Region, RingBroken
from firkin.engine.vhost.ring import EVENT_IDX, INDIRECT_DESC, NOTIFY_ON_EMPTY, SplitRing
from firkin.engine.vhost.vring import NO_FD, RX, Vring

ANY_LAYOUT = 1 << 27
LOG_ALL = 1 << 26  # without it QEMU refuses to migrate, and so to snapshot
VERSION_1 = 1 << 32
FEATURES = VERSION_1 | EVENT_IDX | INDIRECT_DESC | NOTIFY_ON_EMPTY | ANY_LAYOUT | LOG_ALL

MAX_REGIONS = 64
MAX_RING_SIZE = 1024

_TYPE = 0xAF
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_PAIR, _INDEX_FD = struct.Struct("<II"), struct.Struct("<Ii")
_VRING_ADDR = struct.Struct("<IIQQQQ")
_REGION = struct.Struct("<QQQQ")


Handlers = Mapping[int, Callable[[Any, int], None]]


class Refused(Exception):
    """The kernel would answer this ioctl with `errno`."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class Listener(Protocol):
    """Who serves the rings."""

    def started(self) -> None:
        """Rings that were missing exist now."""

    def stopped(self) -> None:
        """Rings that were there are gone."""

    def kick_changed(self, index: int, old_fd: int) -> None:
        """The old doorbell, possibly NO_FD, is about to be closed."""


def iow(number: int, size: int) -> int:
    """A vhost ioctl whose argument QEMU fills (_IOW)."""
    return 1 << 30 | size << 16 | _TYPE << 8 | number


def ior(number: int, size: int) -> int:
    """A vhost ioctl whose argument we fill (_IOR)."""
    return 2 << 30 | size << 16 | _TYPE << 8 | number


class VhostControl:
    """The state behind one of QEMU's vhost descriptors, and the answer to each ioctl on it."""

    FEATURES: ClassVar[int] = FEATURES

    def __init__(self, memory: ProcessMemory, fetch_fd: Callable[[int], int], listener: Listener) -> None:
        """`fetch_fd` copies one of QEMU's eventfds into this process; it raises OSError."""
        self.memory = memory
        self.listener = listener
        self.features = 0
        self.vrings = (Vring(), Vring())
        self._fetch_fd = fetch_fd
        self._log_base: int | None = None

    def answer(self, request: int, argument: int) -> int:
        """Carry out one ioctl whose third argument is `argument`; 0, or the errno to fail it with."""
        handler = self.HANDLERS.get(request)
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
        self.memory.write(argument, _U64.pack(self.FEATURES))

    def _set_features(self, argument: int) -> None:
        features = self.read_one(_U64, argument)
        if features & ~self.FEATURES:
            raise Refused(errno.EOPNOTSUPP)
        self.features = features
        self._apply_log()

    def _get_backend_features(self, argument: int) -> None:
        self.memory.write(argument, _U64.pack(0))

    def _set_backend_features(self, argument: int) -> None:
        if self.read_one(_U64, argument):
            raise Refused(errno.EOPNOTSUPP)

    def _set_mem_table(self, argument: int) -> None:
        count, padding = self.read(_PAIR, argument)
        if padding:
            raise Refused(errno.EOPNOTSUPP)
        if count > MAX_REGIONS:
            raise Refused(errno.E2BIG)
        rows = _REGION.iter_unpack(self.memory.read(argument + _PAIR.size, count * _REGION.size))
        self.memory.regions = tuple(Region(*row[:3]) for row in rows)

    def _set_log_base(self, argument: int) -> None:
        self._log_base = self.read_one(_U64, argument)
        self._apply_log()

    def _apply_log(self) -> None:
        self.memory.log_address = self._log_base if self.features & LOG_ALL else None

    def _set_vring_num(self, argument: int) -> None:
        vring, size = self._vring_and_value(argument)
        if vring.ring is not None:
            raise Refused(errno.EBUSY)
        if not 0 < size <= MAX_RING_SIZE or size & (size - 1):
            raise Refused(errno.EINVAL)
        vring.size = size

    def _set_vring_base(self, argument: int) -> None:
        vring, base = self._vring_and_value(argument)
        if vring.ring is not None:
            raise Refused(errno.EBUSY)
        if base > 0xFFFF:
            raise Refused(errno.EINVAL)
        vring.base = base

    def _get_vring_base(self, argument: int) -> None:
        index = self.read_one(_U32, argument)
        self.memory.write(argument, _PAIR.pack(index, self.vring(index).next_avail()))

    def _set_vring_addr(self, argument: int) -> None:
        """Also comes while the device runs, when a migration switches dirty logging on or off."""
        index, flags, desc, used, avail, _log = self.read(_VRING_ADDR, argument)
        if flags & ~1:
            raise Refused(errno.EOPNOTSUPP)
        if desc % 16 or avail % 2 or used % 4:
            raise Refused(errno.EINVAL)
        vring = self.vring(index)
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
        self.vring(self.read(_INDEX_FD, argument)[0])

    def _set_fd(self, argument: int, name: str) -> None:
        index, number = self.read(_INDEX_FD, argument)
        vring = self.vring(index)
        old, vring.fds[name] = vring.fds[name], NO_FD if number == NO_FD else self._fetch_fd(number)
        if name == "kick":
            self.listener.kick_changed(index, old)
        if old != NO_FD:
            os.close(old)

    def start(self, indices: Iterable[int]) -> None:
        """Make rings of what was set, all of them or none. Raises: RingBroken."""
        rings = {
            index: SplitRing(
                self.memory,
                self.vrings[index].ring_layout(),
                device_writes=index == RX,
                features=self.features,
                next_avail=self.vrings[index].base,
            )
            for index in indices
        }
        for index, ring in rings.items():
            self.vrings[index].ring = ring
        self.listener.started()

    def stop(self, indices: Iterable[int]) -> None:
        """Take rings away, and keep how far they got."""
        for index in indices:
            vring = self.vrings[index]
            vring.base, vring.ring = vring.next_avail(), None
        self.listener.stopped()

    def vring(self, index: int) -> Vring:
        if index >= len(self.vrings):
            raise Refused(errno.ENOBUFS)
        return self.vrings[index]

    def _vring_and_value(self, argument: int) -> tuple[Vring, int]:
        index, value = self.read(_PAIR, argument)
        return self.vring(index), value

    def read(self, layout: struct.Struct, argument: int) -> tuple[int, ...]:
        return layout.unpack(self.memory.read(argument, layout.size))

    def read_one(self, layout: struct.Struct, argument: int) -> int:
        return self.read(layout, argument)[0]

    HANDLERS: ClassVar[Handlers] = {
        ior(0x00, 8): _get_features,
        iow(0x00, 8): _set_features,
        _TYPE << 8 | 0x01: _accept,  # SET_OWNER
        iow(0x03, 8): _set_mem_table,
        iow(0x04, 8): _set_log_base,
        iow(0x07, 4): _accept,  # SET_LOG_FD: an eventfd that QEMU never waits for
        iow(0x10, 8): _set_vring_num,
        iow(0x11, 40): _set_vring_addr,
        iow(0x12, 8): _set_vring_base,
        ior(0x12, 8) | 1 << 30: _get_vring_base,
        iow(0x13, 8): _set_vring_endian,
        iow(0x20, 8): _set_vring_kick,
        iow(0x21, 8): _set_vring_call,
        iow(0x22, 8): _set_vring_err,
        iow(0x23, 8): _accept,  # SET_VRING_BUSYLOOP_TIMEOUT
        iow(0x25, 8): _set_backend_features,
        ior(0x26, 8): _get_backend_features,
    }
