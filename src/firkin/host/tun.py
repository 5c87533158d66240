"""Persistent tap devices (kernel document networking/tuntap), in the namespace of the calling thread."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from firkin.errors import KernelRefused

DEVICE = "/dev/net/tun"
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
HINTS = {
    errno.ENOENT: "sudo modprobe tun",
    errno.EACCES: f"sudo chmod 666 {DEVICE}, or run as root",
    errno.EPERM: "needs root or CAP_NET_ADMIN",
    errno.EBUSY: "another process holds the tap: ip -d link show",
}


def create(name: str, *, owner_uid: int | None = None) -> None:
    """Make a tap that stays until it is deleted; `owner_uid` may open it without privileges.

    Raises:
        KernelRefused: with what to do about it.
    """
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
            if owner_uid is not None:
                fcntl.ioctl(fd, TUNSETOWNER, owner_uid)
            fcntl.ioctl(fd, TUNSETPERSIST, 1)
        finally:
            os.close(fd)
    except OSError as error:
        code = error.errno or 0
        raise KernelRefused(f"create tap {name}", code, hint=HINTS.get(code, "firkin doctor")) from error
