"""Each compression comes out as it went in, whatever follows the stream; damage is an error of ours."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct

import pytest

from firkin.errors import HostError
from firkin.host.decompress import LZ4_MAGIC, ZSTD_MAGIC, decompress

CONTENT = b"\x7fELF" + bytes(range(256)) * 64


def lz4_legacy(*blocks: bytes) -> bytes:
    """The lz4 tool's legacy frame with literals only, and the length that the kernel's build appends."""
    framed = b"".join(struct.pack("<I", len(literals(block))) + literals(block) for block in blocks)
    return LZ4_MAGIC + framed + struct.pack("<I", sum(map(len, blocks)))


def literals(data: bytes) -> bytes:
    """One lz4 sequence: a token, the length in bytes of 255, the bytes."""
    rest = len(data) - 15
    return b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + data


def zstd(data: bytes, *, with_size: bool) -> bytes:
    """A frame of one raw block (RFC 8878), as the kernel's build makes it, or as module compression does."""
    block = struct.pack("<I", 1 | len(data) << 3)[:3] + data
    if with_size:
        return ZSTD_MAGIC + b"\xa0" + struct.pack("<I", len(data)) + block
    return ZSTD_MAGIC + b"\x00\x48" + block + struct.pack("<I", len(data))


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(gzip.compress(CONTENT), id="gzip"),
        pytest.param(bz2.compress(CONTENT), id="bzip2"),
        pytest.param(lzma.compress(CONTENT), id="xz"),
        pytest.param(lzma.compress(CONTENT, lzma.FORMAT_ALONE), id="lzma"),
    ],
)
def test_content_comes_back_and_what_follows_is_ignored(packed: bytes) -> None:
    assert decompress(packed) == CONTENT
    assert decompress(packed + b"\x04\x40\x00\x00") == CONTENT


def test_lz4_blocks_are_joined() -> None:
    assert decompress(lz4_legacy(CONTENT, CONTENT[:100])) == CONTENT + CONTENT[:100]


@pytest.mark.parametrize("with_size", [True, False])
def test_zstd_finds_the_size_in_its_frame_or_behind_it(with_size: bool) -> None:
    assert decompress(zstd(CONTENT, with_size=with_size)) == CONTENT


def test_plain_content_stays_as_it_is() -> None:
    assert decompress(CONTENT) == CONTENT


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(gzip.compress(CONTENT)[:-20], id="gzip cut short"),
        pytest.param(lzma.compress(CONTENT)[:-20], id="xz cut short"),
        pytest.param(LZ4_MAGIC + b"\x10\x00\x00\x00", id="lz4 without blocks"),
        pytest.param(LZ4_MAGIC + struct.pack("<I", 4) + b"\xff\xff\xff\xff" + b"\xff\xff\x00\x00", id="lz4 nonsense"),
        pytest.param(lz4_legacy(CONTENT)[:-4] + b"\xff\xff\xff\xff", id="lz4 of 4 GiB"),
        pytest.param(ZSTD_MAGIC + bytes(20), id="zstd nonsense"),
        pytest.param(b"\x1f\x8b\x08" + bytes(30), id="gzip nonsense"),
    ],
)
def test_damage_is_an_error_that_says_so(damaged: bytes) -> None:
    with pytest.raises(HostError, match="damaged compressed data"):
        decompress(damaged)
