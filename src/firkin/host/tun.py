"""Persistent taps: network interfaces whose other end is whoever opens /dev/net/tun under their name."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from firkin.errors import KernelRefused

DEVICE = "/dev/net/tun"
# linux/if_tun.h
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
IFREQ = struct.Struct("=16sH22x")

HINTS = {
    errno.ENOENT: "sudo modprobe tun",
    errno.ENODEV: "sudo modprobe tun",
    errno.EACCES: f"{DEVICE} is closed to this user: sudo chmod 666 {DEVICE}",
    errno.EPERM: "making a tap needs CAP_NET_ADMIN in this network namespace: run as root",
    errno.EBUSY: "another process has this tap open",
}


@contextmanager
def attached(name: str, *, vnet_hdr: bool = True) -> Iterator[int]:
    """Be the far end of the tap for this scope. A tap that does not exist is made, and goes again unless `persist`ed.

    Raises:
        KernelRefused: with a hint on what is missing.
    """
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(f"cannot open {DEVICE}", error) from error
    try:
        request = IFREQ.pack(name.encode(), IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0))
        _ioctl(fd, TUNSETIFF, request, f"cannot make tap {name!r}")
        yield fd
    finally:
        os.close(fd)


def persist(fd: int, *, owner_uid: int | None = None) -> None:
    """Let the attached tap outlive this descriptor; with an owner, only that user (and root) may attach later."""
    if owner_uid is not None:
        _ioctl(fd, TUNSETOWNER, owner_uid, f"cannot give the tap to uid {owner_uid}")
    _ioctl(fd, TUNSETPERSIST, 1, "cannot make the tap persistent")


def create(name: str, *, owner_uid: int | None = None, vnet_hdr: bool = True) -> None:
    """Make a persistent tap in the current namespace; having it already is fine."""
    with attached(name, vnet_hdr=vnet_hdr) as fd:
        persist(fd, owner_uid=owner_uid)


def delete(name: str) -> None:
    """Remove a persistent tap that nobody has open."""
    with attached(name) as fd:
        _ioctl(fd, TUNSETPERSIST, 0, f"cannot delete tap {name!r}")


def _ioctl(fd: int, request: int, argument: int | bytes, what: str) -> None:
    try:
        fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise _refused(what, error) from error


def _refused(what: str, error: OSError) -> KernelRefused:
    number = error.errno or errno.EIO
    return KernelRefused(what, number, hint=HINTS.get(number, ""))
