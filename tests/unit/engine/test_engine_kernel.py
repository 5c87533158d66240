"""What a kernel file tells about itself; no file, however odd, does more than be no kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_files import OTHER_NOTE, bzimage, elf

from firkin.engine import kernel


def file(content: bytes) -> int:
    fd = os.memfd_create("kernel")
    os.write(fd, content)
    return fd


def inspect(content: bytes) -> kernel.KernelFacts:
    fd = file(content)
    try:
        return kernel.inspect(fd)
    finally:
        os.close(fd)


def test_an_elf_file_tells_how_it_finds_devices_and_how_it_starts() -> None:
    assert inspect(elf(by_cmdline=True)) == kernel.KernelFacts(
        is_elf=True, finds_mmio_by_cmdline=True, starts_by_pvh=True
    )
    assert inspect(elf(notes=OTHER_NOTE)) == kernel.KernelFacts(
        is_elf=True, finds_mmio_by_cmdline=False, starts_by_pvh=False
    )


@pytest.mark.parametrize("content", [b"", b"MZ", bytes(5000)])
def test_other_files_are_no_kernels(content: bytes) -> None:
    assert inspect(content) == kernel.NO_KERNEL


@given(st.binary(max_size=300), st.integers(0, 200))
def test_damaged_headers_are_survived(noise: bytes, at: int) -> None:
    content = bytearray(elf(by_cmdline=True))
    content[at : at + len(noise)] = noise
    inspect(b"\x7fELF" + bytes(content[4:]))


def test_a_bzimage_is_unpacked() -> None:
    packed = file(bzimage(elf()))
    unpacked = kernel.unpack(packed)
    assert unpacked is not None
    assert os.pread(unpacked, 1 << 16, 0) == elf()
    assert kernel.readable_by_all(unpacked)
    os.close(packed)
    os.close(unpacked)


@pytest.mark.parametrize("content", [elf(), bzimage(elf())[:-30], bzimage(b"no kernel"), b"", b"MZ"])
def test_what_is_no_whole_bzimage_stays_as_it_is(content: bytes) -> None:
    fd = file(content)
    assert kernel.unpack(fd) is None
    os.close(fd)


def test_a_folder_is_no_kernel(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="directory"):
        kernel.unpack(fd)
    os.close(fd)
