"""Bytes out of the compressions that kernels and their modules come in. No effect beyond loading a system library."""

from __future__ import annotations

import bz2
import ctypes
import lzma
import struct
import zlib

from firkin.errors import HostError

# The lz4 tool's legacy framing, which the kernel uses: blocks of at most 8 MiB of content, each after its length.
LZ4_BLOCK_BYTES = 8 << 20
MOST_BYTES = 1 << 30  # no kernel is larger, but damaged data may say so
LZ4_MAGIC = b"\x02\x21\x4c\x18"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def decompress(data: bytes) -> bytes:
    """Expand `data`, whose first bytes tell the compression; content that has none is answered as it is.

    Bytes after the end of the compressed stream are ignored, except that lz4 and zstd need the length that the
    kernel's build appends (4 bytes, little-endian).

    Raises:
        HostError: damaged data, or the system library for it (liblz4, libzstd) is missing.
    """
    for magic, expand in _FORMATS.items():
        if data.startswith(magic):
            try:
                return expand(data)
            except (EOFError, OSError, ValueError, lzma.LZMAError, struct.error, zlib.error) as error:
                raise HostError(f"damaged compressed data: {error}", hint="fetch the package again") from error
    return data


def _stream(decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: bytes) -> bytes:
    content = decoder.decompress(data, MOST_BYTES)
    if not decoder.eof:
        raise EOFError("it ends too early, or too late")
    return content


def _gzip(data: bytes) -> bytes:
    decoder = zlib.decompressobj(wbits=31)
    content = decoder.decompress(data, MOST_BYTES)
    if not decoder.eof:
        raise EOFError("it ends too early, or too late")
    return content


def _lz4(data: bytes) -> bytes:
    library = _library("liblz4.so.1", "liblz4-1")
    buffer = ctypes.create_string_buffer(LZ4_BLOCK_BYTES)
    content = bytearray()
    size = _plausible(_appended_size(data))
    position = len(LZ4_MAGIC)
    while len(content) < size:
        (length,) = struct.unpack_from("<I", data, position)
        block = data[position + 4 : position + 4 + length]
        written = library.LZ4_decompress_safe(block, buffer, len(block), LZ4_BLOCK_BYTES)
        if written <= 0:
            raise ValueError(f"bad lz4 block at byte {position}")
        content += memoryview(buffer)[:written]
        position += 4 + length
    return bytes(content)


def _zstd(data: bytes) -> bytes:
    library = _library("libzstd.so.1", "libzstd1")
    library.ZSTD_decompress.restype = library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    length = library.ZSTD_findFrameCompressedSize(data, ctypes.c_size_t(len(data)))
    size = _plausible(_zstd_size(library, data))
    buffer = ctypes.create_string_buffer(max(1, size))
    written = library.ZSTD_decompress(buffer, ctypes.c_size_t(size), data, ctypes.c_size_t(length))
    if written != size:
        raise ValueError("bad zstd frame")
    return buffer.raw[:size]


def _zstd_size(library: ctypes.CDLL, data: bytes) -> int:
    """A frame may carry its content's size (kernel modules do); else the kernel's build has appended it."""
    library.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    size: int = library.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data)))
    return size if size < 1 << 40 else _appended_size(data)


def _plausible(size: int) -> int:
    if size > MOST_BYTES:
        raise ValueError(f"{size} bytes of content announced")
    return size


def _appended_size(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, len(data) - 4)[0])


def _library(name: str, package: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise HostError(f"{name}: library not found", hint=f"sudo apt-get install {package}") from error


_FORMATS = {
    b"\x1f\x8b\x08": _gzip,
    b"BZh": lambda data: _stream(bz2.BZ2Decompressor(), data),
    b"\xfd7zXZ\x00": lambda data: _stream(lzma.LZMADecompressor(), data),
    b"\x5d\x00\x00": lambda data: _stream(lzma.LZMADecompressor(lzma.FORMAT_ALONE), data),
    LZ4_MAGIC: _lz4,
    ZSTD_MAGIC: _zstd,
}
