"""What a kernel file tells about itself, and how it reaches an unprivileged QEMU."""

from __future__ import annotations

import mmap
import os
import stat
import struct
from typing import NamedTuple

_ELF_MAGIC = b"\x7fELF"
# The parameter exists in kernels built with CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES; others find devices through ACPI only.
_MMIO_PARAMETER = b"virtio_mmio.device\0"
# Parameter names are constants; looking only there takes 5 ms instead of 50.
_CONSTANTS = b".rodata\0"


class KernelFacts(NamedTuple):
    """What decides how a kernel is booted."""

    is_elf: bool
    finds_mmio_by_cmdline: bool


def inspect(fd: int) -> KernelFacts:
    """Look into an open kernel file.

    Raises:
        OSError: it cannot be mapped.
    """
    if os.fstat(fd).st_size == 0:
        return KernelFacts(is_elf=False, finds_mmio_by_cmdline=False)
    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as image:
        is_elf = image[:4] == _ELF_MAGIC
        return KernelFacts(is_elf, is_elf and image.find(_MMIO_PARAMETER, *_constants(image)) >= 0)


def _constants(image: mmap.mmap) -> tuple[int, int]:
    """Where an ELF file keeps its constants: start and end; the whole file where its sections cannot be read."""
    try:
        table, entry_size, count, names_index = struct.unpack_from("<Q10xHHH", image, 0x28)
        sections = [struct.unpack_from("<I20xQQ", image, table + number * entry_size) for number in range(count)]
        names = sections[names_index][1]
        for name, offset, size in sections:
            if image[names + name : names + name + len(_CONSTANTS)] == _CONSTANTS:
                return offset, offset + size
    except (struct.error, IndexError):
        pass
    return 0, len(image)


def readable_by_all(fd: int) -> bool:
    """Whether any user may open this file again through /proc/self/fd."""
    return bool(os.fstat(fd).st_mode & stat.S_IROTH)


def in_memory(name: str, fd: int) -> int:
    """A copy of a file without a name on disk; any process that is handed it may open it again, nobody else can.

    Raises:
        OSError: the file cannot be read, or memory is short.
    """
    copy = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        offset = 0
        while sent := os.sendfile(copy, fd, offset, 1 << 30):
            offset += sent
    except OSError:
        os.close(copy)
        raise
    return copy
