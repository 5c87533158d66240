"""What a guest says of itself: files of its /proc, and its processes. Nothing of it is trusted: sizes and numbers are
bounded, and what is not as the kernel writes it is an error."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from firkin.errors import AgentError
from firkin.spec import MAX_VCPUS

FILES = ("/proc/stat", "/proc/meminfo", "/proc/diskstats", "/proc/net/dev", "/proc/loadavg", "/proc/uptime")

TICKS = 100  # a second, in what the kernel tells of processor time on every architecture that we run
SECTOR_BYTES = 512
PAGE_BYTES = 4096
PF_KTHREAD = 0x00200000  # linux/sched.h

_U32 = struct.Struct("<I")
_PROCESS = struct.Struct("<II")
# Twenty digits hold every u64; the kernel writes no longer number.
_CPU = re.compile(rb"cpu +((?:\d{1,20} ){7}\d{1,20})[ \d]*\n")
_VCPU = re.compile(rb"^cpu\d+ ", re.MULTILINE)
_MEMORY = re.compile(rb"^(MemTotal|MemAvailable): +(\d{1,15}) kB$", re.MULTILINE)
_DISK = re.compile(rb"^ *\d+ +\d+ vd[a-z]+ \d+ \d+ (\d{1,20}) \d+ \d+ \d+ (\d{1,20}) ", re.MULTILINE)
# Bridges, tunnels and the like are made of these, and would be counted twice.
_NIC = re.compile(rb"^ *e(?:th|n)\w*: *(\d{1,20})(?: +\d+){7} +(\d{1,20}) ", re.MULTILINE)
_LOAD = re.compile(rb"(\d{1,9}\.\d\d) \S+ \S+ \d+/(\d{1,9}) \d+\n")
_UPTIME = re.compile(rb"(\d{1,12}\.\d\d) \d+\.\d\d\n")
_STAT = re.compile(rb"(\d{1,10}) \((.{0,64})\) ([A-Za-z])((?: -?\d{1,20}){21,60})\n?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestStats:
    """One reading, as the guest's kernel tells it. Times and bytes count from the guest's boot.

    `cpu_busy_s` and `cpu_idle_s` are sums over its vcpus; `memory_used_bytes` is what programs could not have, caches
    left out; `disk_*` are of its virtio disks, `net_*` of its network cards; `tasks` are threads, the kernel's own too.
    """

    uptime_s: float
    vcpus: int
    cpu_busy_s: float
    cpu_idle_s: float
    load_1m: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    net_received_bytes: int
    net_sent_bytes: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestProcess:
    """One process in the guest. Names are the guest's word: escape them before a person's terminal sees them.

    `state` is the kernel's letter (R runs, S sleeps, D waits for a disk, Z is dead); `cpu_percent` is of one vcpu, over
    the whole life of the process; `started_s` counts from the guest's boot; the kernel's own threads have no `argv`.
    """

    pid: int
    parent_pid: int
    user_id: int
    state: str
    threads: int
    cpu_s: float
    cpu_percent: float
    memory_bytes: int
    started_s: float
    kernel: bool
    name: str
    argv: tuple[str, ...]

    @property
    def command(self) -> str:
        """Its command line; its name in brackets where it has none."""
        return " ".join(self.argv) or f"[{self.name}]"


def parse_stats(answer: bytes) -> GuestStats:
    """What the task `files` answers for FILES.

    Raises:
        AgentError: a file is missing, or not as the kernel writes it.
    """
    files = dict(zip(FILES, _blobs(answer, len(FILES)), strict=True))
    cpu = [int(number) for number in _first(_CPU, files, "/proc/stat")[0].split()]
    idle = cpu[3] + cpu[4]
    load, tasks = _first(_LOAD, files, "/proc/loadavg")
    used, total = _memory(files["/proc/meminfo"])
    disks, nics = _DISK.findall(files["/proc/diskstats"]), _NIC.findall(files["/proc/net/dev"])
    return GuestStats(
        uptime_s=float(_first(_UPTIME, files, "/proc/uptime")[0]),
        vcpus=min(max(1, len(_VCPU.findall(files["/proc/stat"]))), MAX_VCPUS),
        cpu_busy_s=(sum(cpu[:7]) - idle) / TICKS,  # the eighth is time that the host took away
        cpu_idle_s=idle / TICKS,
        load_1m=float(load),
        memory_used_bytes=used,
        memory_total_bytes=total,
        disk_read_bytes=sum(int(read) for read, _ in disks) * SECTOR_BYTES,
        disk_written_bytes=sum(int(written) for _, written in disks) * SECTOR_BYTES,
        net_received_bytes=sum(int(received) for received, _ in nics),
        net_sent_bytes=sum(int(sent) for _, sent in nics),
        tasks=int(tasks),
    )


def parse_uptime(answer: bytes) -> float:
    """Seconds since the guest's boot, from the task `files /proc/uptime`. Raises: AgentError."""
    (text,) = _blobs(answer, 1)
    return float(_first(_UPTIME, {"/proc/uptime": text}, "/proc/uptime")[0])


def parse_processes(answer: bytes, uptime_s: float) -> list[GuestProcess]:
    """What the task `processes` answers, in its order; without those that ended while it looked.

    Raises:
        AgentError: it is cut short or makes no sense.
    """
    found, at = [], 0
    while at < len(answer):
        if len(answer) - at < _PROCESS.size:
            raise AgentError("agent: a list of processes that is cut short")
        pid, user_id = _PROCESS.unpack_from(answer, at)
        stat, at = _blob(answer, at + _PROCESS.size)
        cmdline, at = _blob(answer, at)
        if stat:
            found.append(_process(pid, user_id, stat, cmdline, uptime_s))
    return found


def _process(pid: int, user_id: int, stat: bytes, cmdline: bytes, uptime_s: float) -> GuestProcess:
    parts = _STAT.fullmatch(stat)
    if parts is None or int(parts[1]) != pid:
        raise AgentError(f"guest: /proc/{pid}/stat makes no sense: {stat[:80]!r}")
    field = dict(enumerate(map(int, parts[4].split()), start=4))  # numbered as in proc(5)
    cpu_s, started_s = (field[14] + field[15]) / TICKS, field[22] / TICKS
    lived_s = uptime_s - started_s
    return GuestProcess(
        pid=pid,
        parent_pid=field[4],
        user_id=user_id,
        state=parts[3].decode(),
        threads=field[20],
        cpu_s=cpu_s,
        cpu_percent=round(cpu_s / lived_s * 100, 1) if lived_s > 0 else 0.0,
        memory_bytes=field[24] * PAGE_BYTES,
        started_s=started_s,
        kernel=bool(field[9] & PF_KTHREAD),
        name=_text(parts[2]),
        argv=tuple(_text(word) for word in cmdline.rstrip(b"\0").split(b"\0")) if cmdline else (),
    )


def _text(word: bytes) -> str:
    return word.decode(errors="backslashreplace")


def _memory(text: bytes) -> tuple[int, int]:
    """Bytes used and in all."""
    found = {name: int(kib) << 10 for name, kib in _MEMORY.findall(text)}
    total, available = found.get(b"MemTotal", 0), found.get(b"MemAvailable", -1)
    if not 0 <= available <= total:
        raise AgentError(f"guest: /proc/meminfo makes no sense: {text[:80]!r}")
    return total - available, total


def _first(pattern: re.Pattern[bytes], files: dict[str, bytes], path: str) -> tuple[bytes, ...]:
    found = pattern.match(files[path])
    if found is None:
        raise AgentError(f"guest: {path} makes no sense: {files[path][:80]!r}")
    return found.groups()


def _blobs(answer: bytes, count: int) -> Iterator[bytes]:
    at = 0
    for _ in range(count):
        blob, at = _blob(answer, at)
        yield blob
    if at != len(answer):
        raise AgentError("agent: more than was asked for")


def _blob(answer: bytes, at: int) -> tuple[bytes, int]:
    """The blob that starts at `at`, and where it ends."""
    if len(answer) - at < _U32.size:
        raise AgentError("agent: an answer that is cut short")
    (size,) = _U32.unpack_from(answer, at)
    at += _U32.size
    if size > len(answer) - at:
        raise AgentError("agent: an answer that is cut short")
    return answer[at : at + size], at + size
