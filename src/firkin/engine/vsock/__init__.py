"""Firecracker's hybrid vsock for QEMU, on hosts whose kernel has no vhost-vsock: a device of `engine.vhost`.

device    what the engine holds           backend   its working half, in the vhost thread
control   vhost-vsock's own ioctls        pump      rings to muxer and back
packet    the wire format                 muxer     all connections
doorway   the host's programs             notice    to a restored guest
                                          connection, streams, greeting, clock: parts of these
"""

from firkin.engine.vsock.device import VsockDevice

__all__ = ["VsockDevice"]
