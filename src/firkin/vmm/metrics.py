"""What an engine counted, from the file that it writes Firecracker's metrics to: a line a minute, and one when asked.

A line tells what was added since the one before, so the sum of all lines is the whole. What was added up already is
kept beside the file, and its blocks are given back to the disk, so that a machine may run for years.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from firkin.errors import EngineError, KernelRefused
from firkin.fcapi.instance import Action, ActionType
from firkin.host.files import write_atomic
from firkin.host.libc import punch_hole
from firkin.paths import METRICS
from firkin.vmm.boot import API_SOCKET, Call
from firkin.vmm.client import ApiClient

FLUSH_TIMEOUT_S = 2.0
KEPT_BYTES = 1 << 16  # about ten lines
MAX_LINE_BYTES = 1 << 20


class _Disks(msgspec.Struct):
    read_bytes: int
    write_bytes: int


class _Packets(msgspec.Struct):
    rx_bytes_count: int
    tx_bytes_count: int


class _Line(msgspec.Struct):
    """The groups that hold sums over a machine's devices; a line has many more."""

    block: _Disks
    net: _Packets
    vsock: _Packets


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Bytes that the engine carried for the guest since it started; the guest cannot make them up.

    Received and sent are the guest's point of view; `vsock_*` is what it and its host said to each other.
    """

    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    net_received_bytes: int = 0
    net_sent_bytes: int = 0
    vsock_received_bytes: int = 0
    vsock_sent_bytes: int = 0


class _Sum(msgspec.Struct, frozen=True):
    """Everything up to `offset` in the file."""

    offset: int
    stats: EngineStats


def read(run_folder: Path) -> EngineStats | None:
    """Have the engine write a line now, and add up. None where it was started without metrics.

    Raises:
        EngineError: it does not answer in time, or its file makes no sense.
    """
    path = run_folder / METRICS
    if not path.exists():
        return None
    with ApiClient(run_folder / API_SOCKET, timeout_s=FLUSH_TIMEOUT_S) as api:
        api.call(Call("PUT", "/actions", Action(action_type=ActionType.FLUSH_METRICS)))
    return add_up(path)


def add_up(path: Path) -> EngineStats:
    """The sum of all lines; most of them are forgotten on the way. Raises: EngineError."""
    summed = path.with_suffix(".sum")
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # one at a time forgets lines
            before = msgspec.json.decode(summed.read_bytes(), type=_Sum) if summed.exists() else _Sum(0, EngineStats())
            now = _add_lines(file, before)
            if now.offset - before.offset > KEPT_BYTES:
                write_atomic(summed, msgspec.json.encode(now), mode=0o600)
                with suppress(KernelRefused):  # a file system without holes keeps what we no longer need
                    punch_hole(file.fileno(), now.offset)
    except (OSError, msgspec.DecodeError) as error:
        raise EngineError(f"{path}: metrics that make no sense: {error}", hint="firkin logs --engine NAME") from error
    return now.stats


def _add_lines(file: BinaryIO, before: _Sum) -> _Sum:
    """Go on behind what was added already, up to the last whole line."""
    file.seek(before.offset)
    offset, stats = before.offset, before.stats
    while (text := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
        stats = _add(stats, msgspec.json.decode(text, type=_Line))
        offset += len(text)
    return _Sum(offset, stats)


def _add(stats: EngineStats, line: _Line) -> EngineStats:
    return EngineStats(
        disk_read_bytes=stats.disk_read_bytes + line.block.read_bytes,
        disk_written_bytes=stats.disk_written_bytes + line.block.write_bytes,
        net_received_bytes=stats.net_received_bytes + line.net.rx_bytes_count,
        net_sent_bytes=stats.net_sent_bytes + line.net.tx_bytes_count,
        vsock_received_bytes=stats.vsock_received_bytes + line.vsock.rx_bytes_count,
        vsock_sent_bytes=stats.vsock_sent_bytes + line.vsock.tx_bytes_count,
    )
