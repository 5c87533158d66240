"""Files that look like kernels: ELF with or without a PVH note, and bzImages around them."""

from __future__ import annotations

import gzip
import struct

PVH_NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0" + struct.pack("<Q", 0x1000000)
OTHER_NOTE = struct.pack("<III", 4, 3, 1) + b"GNU\0" + b"abc\0"


def elf(*, by_cmdline: bool = False, notes: bytes = OTHER_NOTE + PVH_NOTE) -> bytes:
    """An x86_64 ELF file of one note segment, and the kernel parameter that finds virtio-mmio devices, or not."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<H", header, 18, 62)
    struct.pack_into("<Q", header, 0x20, 64)
    struct.pack_into("<HH", header, 0x36, 56, 1)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
    return bytes(header) + segment + notes + (b"virtio_mmio.device\0" if by_cmdline else b"")


def bzimage(kernel: bytes) -> bytes:
    """A setup part of one sector, and the kernel in gzip."""
    payload = gzip.compress(kernel)
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x20F)
    struct.pack_into("<II", setup, 0x248, 0, len(payload))
    return bytes(setup) + payload
