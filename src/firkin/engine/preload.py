"""What PUT /snapshot/load takes to import and to find out, ahead of the call."""

from __future__ import annotations


def for_load() -> None:
    """All of it; a second time costs nothing."""
    from firkin.engine import tsc
    from firkin.engine.net import NetDevice
    from firkin.engine.snapshot import load
    from firkin.engine.twin import adopting
    from firkin.engine.vhost import Trap
    from firkin.engine.vsock import VsockDevice

    del NetDevice, adopting, load, Trap, VsockDevice
    tsc.host_khz()
