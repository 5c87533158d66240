"""What a kernel file tells about itself, and how it reaches an unprivileged QEMU.

QEMU gets every kernel as an ELF file that starts by the PVH protocol, which spares the guest the firmware's way through
real mode. The ELF file within a bzImage is unpacked here, natively, rather than by the guest under emulation.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from typing import NamedTuple

_ELF_MAGIC = b"\x7fELF"
_BZIMAGE_MAGIC = b"HdrS"
_BZIMAGE_MAGIC_AT = 0x202
# How a kernel says where it starts by PVH: owner and type of an ELF note (XEN_ELFNOTE_PHYS32_ENTRY).
_PVH_NOTE = b"Xen\0"
_PVH_TYPE = 18
_PT_NOTE = 4
_MOST_NOTES = 1 << 16
# The parameter exists in kernels built with CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES; others find devices through ACPI only.
_MMIO_PARAMETER = b"virtio_mmio.device\0"
# Parameter names are constants; looking only there takes 5 ms instead of 50.
_CONSTANTS = b".rodata\0"


class KernelFacts(NamedTuple):
    """What decides how a kernel is booted."""

    is_elf: bool
    finds_mmio_by_cmdline: bool
    starts_by_pvh: bool


NO_KERNEL = KernelFacts(is_elf=False, finds_mmio_by_cmdline=False, starts_by_pvh=False)


def unpack(fd: int) -> int | None:
    """A descriptor of the ELF file within an open bzImage; None where it is none, or is damaged.

    Raises:
        OSError: it cannot be read, or memory is short.
    """
    if os.pread(fd, len(_BZIMAGE_MAGIC), _BZIMAGE_MAGIC_AT) != _BZIMAGE_MAGIC:
        return None
    from firkin.errors import HostError
    from firkin.host import vmlinux

    try:
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as image:
            kernel = vmlinux.extract(image[:])
    except HostError:
        return None
    return _memory_file("kernel", kernel)


def inspect(fd: int) -> KernelFacts:
    """Look into an open kernel file.

    Raises:
        OSError: it cannot be mapped.
    """
    if os.fstat(fd).st_size == 0:
        return NO_KERNEL
    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as image:
        if image[:4] != _ELF_MAGIC:
            return NO_KERNEL
        return KernelFacts(
            is_elf=True,
            finds_mmio_by_cmdline=image.find(_MMIO_PARAMETER, *_constants(image)) >= 0,
            starts_by_pvh=_has_pvh_note(image),
        )


def _constants(image: mmap.mmap) -> tuple[int, int]:
    """Where an ELF file keeps its constants: start and end; the whole file where its sections cannot be read."""
    try:
        table, entry_size, count, names_index = struct.unpack_from("<Q10xHHH", image, 0x28)
        sections = [struct.unpack_from("<I20xQQ", image, table + number * entry_size) for number in range(count)]
        names = sections[names_index][1]
        for name, offset, size in sections:
            if image[names + name : names + name + len(_CONSTANTS)] == _CONSTANTS:
                return min(offset, len(image)), min(offset + size, len(image))
    except (struct.error, IndexError, OverflowError):
        pass
    return 0, len(image)


def _has_pvh_note(image: mmap.mmap) -> bool:
    try:
        (table,) = struct.unpack_from("<Q", image, 0x20)
        entry_size, count = struct.unpack_from("<HH", image, 0x36)
        for number in range(count):
            kind, offset, size = struct.unpack_from("<I4xQ16xQ", image, table + number * entry_size)
            if kind == _PT_NOTE and _names_pvh(image[offset : offset + min(size, _MOST_NOTES)]):
                return True
    except (struct.error, OverflowError):
        pass
    return False


def _names_pvh(notes: bytes) -> bool:
    position = 0
    while position + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, position)
        if kind == _PVH_TYPE and notes[position + 12 : position + 12 + name_size] == _PVH_NOTE:
            return True
        position += 12 + (name_size + 3 & ~3) + (size + 3 & ~3)
    return False


def readable_by_all(fd: int) -> bool:
    """Whether any user may open this file again through /proc/self/fd."""
    return bool(os.fstat(fd).st_mode & stat.S_IROTH)


def in_memory(name: str, fd: int) -> int:
    """A copy of a file without a name on disk; any process that is handed it may open it again, nobody else can.

    Raises:
        OSError: the file cannot be read, or memory is short.
    """
    copy = os.memfd_create(name, os.MFD_CLOEXEC)
    offset = 0
    try:
        while sent := os.sendfile(copy, fd, offset, 1 << 30):
            offset += sent
    except OSError:
        os.close(copy)
        raise
    return copy


def _memory_file(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(content)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        os.close(fd)
        raise
    return fd
