"""Time in QEMU's device state: the counters that a guest's clocks are made of, stopped while it lies on disk."""

from __future__ import annotations

import struct

from firkin.errors import EngineError

# A whole section (4) of some number, called "timer", instance 0, version 2; then ticks, a hole, nanoseconds.
_NAME = b"\x05timer" + struct.pack(">II", 0, 2)
_HEAD = struct.Struct(">BI")
_TIMES = struct.Struct(">q8xq")
_FULL_SECTION, _FOOTER = 0x04, b"\x7e"
_STREAM_HEADER = 8  # magic and version come before the first section


class NoClock(EngineError):
    """The stream does not begin as QEMU's streams do."""


def advance(devices: bytes, nanoseconds: int, tsc_khz: int | None) -> bytes:
    """The same devices, later: time stamp counter and virtual clock move on together.

    Raises:
        NoClock: the clock is not where this QEMU keeps it.
    """
    at = _STREAM_HEADER + _HEAD.size + len(_NAME)
    end = at + _TIMES.size
    kind, number = _HEAD.unpack_from(devices.ljust(end, b"\0"), _STREAM_HEADER)
    footer = _FOOTER + number.to_bytes(4, "big")
    if kind != _FULL_SECTION or devices[at - len(_NAME) : at] != _NAME or devices[end : end + len(footer)] != footer:
        raise NoClock("QEMU's device state does not begin with its clock")
    ticks, clock = _TIMES.unpack_from(devices, at)
    # Without a known rate the counter counts nanoseconds, as QEMU's own does where the host has none.
    ticks += nanoseconds * (tsc_khz or 1_000_000) // 1_000_000
    return devices[:at] + _TIMES.pack(ticks, clock + nanoseconds) + devices[end:]
