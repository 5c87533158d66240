from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.accel import Accel
from firkin.engine.snapshot import format as state_file
from firkin.engine.snapshot.crc64 import crc64
from firkin.engine.snapshot.saved import SavedMachine
from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig

SAVED = SavedMachine(
    qemu_version="7.2.22",
    accelerator=Accel.TCG,
    acpi=False,
    saved_at_ns=1,
    tsc_khz=None,
    random_address=None,
    next_host_port=None,
    config=VmConfig(drives=(), boot_source=BootSource(kernel_image_path="vmlinux")),
    devices=b"state" * 1000,
)
WHOLE = state_file.encode(SAVED)


def signed(body: bytes) -> bytes:
    return body + struct.pack("<Q", crc64(body))


def refusal(data: bytes) -> str:
    with pytest.raises(state_file.BadStateFile) as refused:
        state_file.decode(data)
    return str(refused.value)


def test_the_checksum_is_the_known_one_and_vanishes_over_itself() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(signed(b"anything")) == 0


def test_what_was_saved_comes_back() -> None:
    assert state_file.decode(WHOLE) == SAVED
    assert len(WHOLE) < 1000


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    assert refusal(data)


@given(st.binary(max_size=300))
def test_any_content_in_a_good_frame_is_refused_in_words(content: bytes) -> None:
    assert "bitcode" in refusal(signed(WHOLE[:14] + content))
    assert "bitcode" in refusal(signed(WHOLE[:14] + zlib.compress(content)))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, change: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] ^= change
    text = refusal(bytes(damaged))
    assert text.startswith(("Magic value does not match arch: ", "Invalid data version: ", "CRC64 validation failed"))


@given(st.integers(0, len(WHOLE) - 1))
def test_any_part_is_refused(size: int) -> None:
    text = refusal(WHOLE[:size])
    if size < 8:
        assert text == "IO Error: File too short to contain CRC"
    elif size >= 22:
        assert text == "CRC64 validation failed"


def test_versions_that_are_refused() -> None:
    for version, ok in (((10, 0, 7), True), ((10, 1, 0), False), ((9, 0, 0), False), ((11, 0, 0), False)):
        data = signed(struct.pack("<Q3H", 0x0710_1984_8664_0000, *version) + WHOLE[14:-8])
        if ok:
            assert state_file.decode(data) == SAVED
        else:
            assert refusal(data) == "Invalid data version: {}.{}.{}".format(*version)


def test_another_architecture() -> None:
    magic = 0x0710_1984_AAAA_0000
    assert refusal(signed(struct.pack("<Q", magic) + WHOLE[8:-8])) == f"Magic value does not match arch: {magic}"


def test_a_bomb_is_not_inflated() -> None:
    bomb = zlib.compress(bytes(state_file.SIZE_LIMIT + 1))
    assert "bitcode" in refusal(signed(WHOLE[:14] + bomb))


def test_unknown_and_impossible_fields_are_refused() -> None:
    fields = msgspec.to_builtins(SAVED)
    impossible: list[dict[str, object]] = [{"later": 1}, {"tsc_khz": 0}, {"devices": "text"}, {"config": {}}]
    for changes in impossible:
        content = zlib.compress(msgspec.msgpack.encode(fields | changes))
        assert "bitcode" in refusal(signed(WHOLE[:14] + content))


def test_files_that_are_too_large_or_no_files(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 1 << 40)
    with pytest.raises(state_file.BadStateFile, match="Snapshot size exceeds limit of 10000000 bytes"):
        state_file.read(str(large))
    with pytest.raises(state_file.BadStateFile, match=r"IO Error: Is a directory \(os error 21\)"):
        state_file.read(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(state_file.BadStateFile, match="File too short to contain CRC"):
        state_file.read(str(tmp_path / "fifo"))


def test_the_version_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(WHOLE)
    assert state_file.describe(str(tmp_path / "state")) == state_file.VERSION_TEXT == "v10.0.0"
    (tmp_path / "state").write_bytes(WHOLE[:-1])
    with pytest.raises(state_file.BadStateFile, match="CRC64 validation failed"):
        state_file.describe(str(tmp_path / "state"))
