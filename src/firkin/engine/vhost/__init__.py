"""Virtio devices that QEMU believes the kernel serves, and that the engine does.

QEMU hands a vhost device's rings to the kernel by ioctls. A library in QEMU passes them to the engine, where a thread
answers them, and then reads and writes guest memory through /proc/PID/mem.

    trap      what the engine holds            service   the thread: one epoll loop for all devices of one QEMU
    calls     how an ioctl comes and goes      control   the control plane behind the ioctls
    memory    guest memory                     ring      a virtqueue in it
    vring     what QEMU set for a ring         reactor   the epoll set
"""

from firkin.engine.vhost.service import Backend, Device, Surroundings
from firkin.engine.vhost.trap import Trap

__all__ = ["Backend", "Device", "Surroundings", "Trap"]
