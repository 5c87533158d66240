"""Open a tap device by name, in the network namespace that the engine runs in."""

from __future__ import annotations

import fcntl
import os
import struct

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFNAMSIZ = 16


class NoTunDevice(OSError):
    """/dev/net/tun cannot be opened."""


class BadName(ValueError):
    """An interface name of 16 bytes or more."""


def open_tap(name: str) -> int:
    """Attach to the tap `name`, with virtio-net headers; it is made if it does not exist and we may.

    Raises:
        BadName: no interface can have this name.
        NoTunDevice: /dev/net/tun is not there or not ours to open.
        OSError: the kernel refuses: busy, of another kind, or not permitted.
    """
    encoded = name.encode()
    if len(encoded) >= _IFNAMSIZ:
        raise BadName(name)
    try:
        fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NoTunDevice(error.errno, error.strerror, _TUN) from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", encoded, _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    except OSError:
        os.close(fd)
        raise
    return fd
