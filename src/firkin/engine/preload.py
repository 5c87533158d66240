"""What PUT /snapshot/load takes to import, ahead of the call: a fork's latency is mostly made of such things."""

from __future__ import annotations


def for_load() -> None:
    """Import it all; a second time costs nothing."""
    from firkin.engine.net import NetDevice
    from firkin.engine.snapshot import load
    from firkin.engine.vhost import Trap
    from firkin.engine.vsock import VsockDevice

    del NetDevice, load, Trap, VsockDevice
