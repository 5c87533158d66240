"""Network interfaces whose frames pass through the engine, as Firecracker's do.

QEMU's own device would be enough to move frames, but it limits no rate, serves no metadata and counts nothing.

    device    what the engine holds    backend   the working half, in the service's thread
    control   vhost-net's own ioctl    pump      rings to tap and back
    counters  what metrics show    standin   what QEMU gets in place of the tap
"""

from firkin.engine.net.device import NetDevice

__all__ = ["NetDevice"]
