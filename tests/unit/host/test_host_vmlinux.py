"""The kernel inside a bzImage is found by its header, and nothing that is not an x86_64 kernel passes."""

from __future__ import annotations

import gzip
import struct

import pytest

from firkin.errors import HostError
from firkin.host import vmlinux


def elf(machine: int = vmlinux.EM_X86_64, width: int = vmlinux.ELF_CLASS_64) -> bytes:
    header = bytearray(64)
    header[:6] = b"\x7fELF" + bytes((width, 1))
    struct.pack_into("<H", header, 18, machine)
    return bytes(header) + b"the kernel"


def bzimage(content: bytes, *, sectors: int = 3, version: int = 0x20F, offset: int = 40) -> bytes:
    """A setup part of so many sectors, some loader code, the payload, more loader code."""
    setup = bytearray(((sectors or 4) + 1) * 512)
    setup[vmlinux.SETUP_SECTS] = sectors
    setup[vmlinux.HEADER_MAGIC : vmlinux.HEADER_MAGIC + 4] = b"HdrS"
    struct.pack_into("<H", setup, vmlinux.PROTOCOL_VERSION, version)
    struct.pack_into("<II", setup, vmlinux.PAYLOAD_OFFSET, offset, len(content))
    return bytes(setup) + b"\x90" * offset + content + b"\x90" * 100


@pytest.mark.parametrize("sectors", [3, 39, 0])
def test_the_kernel_comes_out_whole(sectors: int) -> None:
    assert vmlinux.extract(bzimage(gzip.compress(elf()), sectors=sectors)) == elf()


def test_a_kernel_that_is_uncompressed_already_is_taken_as_it_is() -> None:
    assert vmlinux.extract(elf()) == elf()


def test_what_is_no_kernel_image_is_refused() -> None:
    with pytest.raises(HostError, match="no HdrS"):
        vmlinux.extract(b"PK\x03\x04" + bytes(1000))


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(HostError, match="no HdrS"):
        vmlinux.extract(b"")


def test_an_image_too_old_to_name_its_payload_is_refused() -> None:
    with pytest.raises(HostError, match=r"boot protocol 2\.07"):
        vmlinux.extract(bzimage(gzip.compress(elf()), version=0x207))


def test_an_image_cut_short_is_refused() -> None:
    with pytest.raises(HostError, match="cut short"):
        vmlinux.extract(bzimage(gzip.compress(elf()))[:-120])


def test_a_payload_that_is_no_elf_is_refused() -> None:
    with pytest.raises(HostError, match="not an ELF file"):
        vmlinux.extract(bzimage(gzip.compress(b"something else" * 10)))


@pytest.mark.parametrize(("machine", "width"), [(183, 2), (3, 1), (vmlinux.EM_X86_64, 1)])
def test_a_kernel_for_another_machine_is_refused(machine: int, width: int) -> None:
    with pytest.raises(HostError, match="not x86_64"):
        vmlinux.check_elf(elf(machine, width))
