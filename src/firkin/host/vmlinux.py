"""The ELF `vmlinux` inside a distribution's bzImage (x86 boot protocol: Documentation/arch/x86/boot.rst of Linux)."""

from __future__ import annotations

import struct

from firkin.errors import HostError
from firkin.host.decompress import decompress

SECTOR_BYTES = 512
SETUP_SECTS = 0x1F1
HEADER_MAGIC = 0x202
PROTOCOL_VERSION = 0x206
PAYLOAD_OFFSET = 0x248
FIRST_VERSION_WITH_PAYLOAD = 0x208
ELF_CLASS_64 = 2
EM_X86_64 = 62


def payload(image: bytes) -> bytes:
    """The compressed kernel within a bzImage.

    Raises:
        HostError: not a bzImage, or one too old to say where its payload is (before Linux 2.6.24).
    """
    if image[HEADER_MAGIC : HEADER_MAGIC + 4] != b"HdrS":
        raise HostError("not a bzImage: its header has no HdrS")
    (version,) = struct.unpack_from("<H", image, PROTOCOL_VERSION)
    if version < FIRST_VERSION_WITH_PAYLOAD:
        raise HostError(f"bzImage: boot protocol {version >> 8}.{version & 255:02} does not name its payload")
    sectors = image[SETUP_SECTS] or 4  # zero means four, for very old loaders
    offset, length = struct.unpack_from("<II", image, PAYLOAD_OFFSET)
    start = (sectors + 1) * SECTOR_BYTES + offset
    if not length or start + length > len(image):
        raise HostError(f"bzImage: cut short: {len(image)} bytes, payload ends at {start + length}")
    return image[start : start + length]


def extract(image: bytes) -> bytes:
    """The uncompressed kernel of `image`, which may be a bzImage or an ELF file already.

    Raises:
        HostError: neither, damaged, or not for x86_64.
    """
    kernel = image if image.startswith(b"\x7fELF") else decompress(payload(image))
    check_elf(kernel)
    return kernel


def check_elf(kernel: bytes) -> None:
    """Refuse what no x86_64 microVM can start.

    Raises:
        HostError: not ELF, not 64 bits, or for another machine.
    """
    if not kernel.startswith(b"\x7fELF") or len(kernel) < 64:
        raise HostError("kernel: not an ELF file, so not a vmlinux")
    (machine,) = struct.unpack_from("<H", kernel, 18)
    if kernel[4] != ELF_CLASS_64 or machine != EM_X86_64:
        raise HostError(f"kernel: for ELF machine {machine}, class {kernel[4]}, not x86_64")
