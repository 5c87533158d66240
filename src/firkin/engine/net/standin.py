"""What QEMU gets in place of the tap: a socket whose TUN ioctls are answered here.

QEMU serves a device by itself when its vhost side fails to start, which a guest can bring about. With the tap in hand
it would then pass frames around every limit; a socket that nobody reads takes them nowhere.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

from firkin.engine.twin.record import Interface
from firkin.engine.vhost.memory import Memory

HEADER_SIZE = 12

_GET_IFF, _GET_FEATURES = 0x800454D2, 0x800454CF
_SET_OFFLOAD = 0x400454D0
_GET_HEADER_SIZE, _SET_HEADER_SIZE = 0x800454D7, 0x400454D8
_WITHOUT_EFFECT = (0x400454D4, 0x400454DC, 0x400454DE)  # size of the send buffer, byte orders: right as they are
_IFREQ_SIZE = 40
_INT = struct.Struct("<i")


class StandIn:
    """Knows the tap. `fd` is for QEMU, which must inherit it under the same number."""

    def __init__(self, tap: int) -> None:
        self._tap = tap
        self._ours, self._qemus = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told_size = HEADER_SIZE
        self._offloads = 0
        fcntl.ioctl(tap, _SET_HEADER_SIZE, _INT.pack(HEADER_SIZE))

    @property
    def fd(self) -> int:
        return self._qemus.fileno()

    def answer(self, request: int, argument: int, memory: Memory) -> int:
        """Carry out one ioctl of QEMU's; 0, or the errno to fail it with. Raises: RingBroken, for a bad pointer."""
        try:
            if request in (_GET_IFF, _GET_FEATURES):
                size = _IFREQ_SIZE if request == _GET_IFF else _INT.size
                memory.write(argument, fcntl.ioctl(self._tap, request, bytes(size)))
            elif request == _SET_OFFLOAD:
                fcntl.ioctl(self._tap, request, argument)
                self._offloads = argument
            elif request == _GET_HEADER_SIZE:
                memory.write(argument, _INT.pack(self._told_size))
            elif request == _SET_HEADER_SIZE:
                # Only remembered: a modern guest's header has twelve bytes, whatever it says.
                (self._told_size,) = _INT.unpack(memory.read(argument, _INT.size))
            elif request not in _WITHOUT_EFFECT:
                return errno.ENOTTY
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def interface(self) -> Interface:
        """What QEMU asked for."""
        return Interface(offloads=self._offloads, header_size=self._told_size)

    def resume(self, interface: Interface) -> None:
        """Be as a QEMU expects that asked another. Raises: OSError, if the tap cannot."""
        fcntl.ioctl(self._tap, _SET_OFFLOAD, interface.offloads)
        self._offloads, self._told_size = interface.offloads, interface.header_size

    def close(self) -> None:
        self._ours.close()
        self._qemus.close()
