"""The state file: magic number, version, compressed content, checksum. Whatever the bytes, they are read or refused.

The frame and the refusals are Firecracker's; the content is our own, and neither reads the other's.
"""

from __future__ import annotations

import os
import struct
import zlib

import msgspec

from firkin.engine.faults import os_text
from firkin.engine.snapshot.crc64 import crc64
from firkin.engine.snapshot.saved import SavedMachine
from firkin.errors import EngineError

VERSION = (10, 0, 0)  # of the state files of Firecracker 1.16
VERSION_TEXT = "v" + ".".join(map(str, VERSION))
SIZE_LIMIT = 10_000_000

_MAGIC = 0x0710_1984_8664_0000  # x86-64
_HEADER = struct.Struct("<Q3H")
_CRC = struct.Struct("<Q")
_FOREIGN = "An error occured during bitcode serialization: bitcode error"  # sic, as upstream says of any other content


class BadStateFile(EngineError):
    """Not a state file of ours, or a damaged one. The text is what Firecracker says of it."""


def encode(saved: SavedMachine) -> bytes:
    """The whole file."""
    body = _HEADER.pack(_MAGIC, *VERSION) + zlib.compress(msgspec.msgpack.encode(saved), 1)
    return body + _CRC.pack(crc64(body))


def decode(data: bytes) -> SavedMachine:
    """Read a whole file.

    Raises:
        BadStateFile: it is something else, of another version, or damaged.
    """
    _check_frame(data)
    try:
        return msgspec.msgpack.decode(_decompress(data[_HEADER.size : -_CRC.size]), type=SavedMachine)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadStateFile(_FOREIGN) from error


def read(path: str) -> SavedMachine:
    """Read the state file at `path`.

    Raises:
        OSError: it cannot be opened.
        BadStateFile: it cannot be read or makes no sense.
    """
    return decode(_read(path))


def describe(path: str) -> str:
    """The version of the state file at `path`, as `--describe-snapshot` prints it.

    Raises:
        OSError, BadStateFile: as `read`.
    """
    data = _read(path)
    _check_frame(data)
    return "v{}.{}.{}".format(*_HEADER.unpack_from(data)[1:])


def _check_frame(data: bytes) -> None:
    if len(data) > SIZE_LIMIT:
        raise BadStateFile(f"Snapshot size exceeds limit of {SIZE_LIMIT} bytes")
    if len(data) < _CRC.size:
        raise BadStateFile("IO Error: File too short to contain CRC")
    if len(data) < _HEADER.size + _CRC.size:
        raise BadStateFile(_FOREIGN)
    magic, *version = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise BadStateFile(f"Magic value does not match arch: {magic}")
    if version[0] != VERSION[0] or version[1] > VERSION[1]:
        raise BadStateFile("Invalid data version: " + ".".join(map(str, version)))
    if crc64(data) != 0:
        raise BadStateFile("CRC64 validation failed")


def _decompress(data: bytes) -> bytes:
    # A few bytes can claim to hold gigabytes.
    inflater = zlib.decompressobj()
    content = inflater.decompress(data, SIZE_LIMIT)
    if not inflater.eof or inflater.unused_data:
        raise BadStateFile(_FOREIGN)
    return content


def _read(path: str) -> bytes:
    # Not blocking: a FIFO without a writer would hold us for ever.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pieces = []
        size = 0
        while size <= SIZE_LIMIT and (piece := os.read(fd, 1 << 20)):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)
    except OSError as error:
        raise BadStateFile(f"IO Error: {os_text(error)}") from error
    finally:
        os.close(fd)
