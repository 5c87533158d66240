"""Firecracker's hybrid vsock for QEMU, on hosts whose kernel has no vhost-vsock.

QEMU's own vhost-vsock device believes that it talks to the kernel: its ioctls are trapped by seccomp and answered here.

    device    what the engine holds           service   the thread: one epoll loop
    seccomp   trap and answer ioctls          vhost     the control plane behind them
    memory    guest memory, /proc/PID/mem     ring      a virtqueue in it
    packet    the wire format                 pump      rings to muxer and back
    muxer     all connections                 connection  one of them
    doorway   the host's programs             reactor, streams, greeting, clock, vring: parts of these
"""

from firkin.engine.vsock.device import VsockDevice

__all__ = ["VsockDevice"]
