"""What a process takes over from the one that starts it and that says what it may do, with what, and how fast.

Two processes of one habitat are interchangeable as parents. The network namespace and the working directory are left
out: a descriptor hands those over.
"""

from __future__ import annotations

import os

_STATUS = (
    b"Umask", b"Uid", b"Gid", b"Groups", b"SigBlk", b"SigIgn", b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb",
    b"NoNewPrivs", b"Seccomp", b"Seccomp_filters", b"Cpus_allowed", b"Mems_allowed",
)  # fmt: skip
_NAMESPACES = ("cgroup", "ipc", "mnt", "pid", "pid_for_children", "time", "time_for_children", "user", "uts")
_FILES = ("cgroup", "limits", "oom_score_adj", "personality")
_SCHEDULING = (16, 37, 38)  # in stat, counted from the state on: nice, rt_priority, policy
# Every Python ignores SIGPIPE and SIGXFSZ once it runs, and what starts programs for it gives them back.
_PYTHONS_OWN = 1 << 12 | 1 << 24


def of(pid: int) -> bytes:
    """The habitat of a process, for comparison.

    Raises:
        OSError: it is gone, or may not be looked at.
    """
    proc = f"/proc/{pid}"
    return b"\n".join([
        _status(_read(f"{proc}/status")),
        *(_read(f"{proc}/{name}") for name in _FILES),
        *(os.fsencode(_link(f"{proc}/ns/{name}")) for name in _NAMESPACES),
        os.fsencode(os.readlink(f"{proc}/root")),  # noqa: PTH115 - pathlib costs start-up time
        _label(f"{proc}/attr/current"),
        _scheduling(_read(f"{proc}/stat")),
    ])  # fmt: skip


def _status(text: bytes) -> bytes:
    fields = dict(line.split(b":\t", 1) for line in text.splitlines() if b":\t" in line)
    fields[b"SigIgn"] = b"%x" % (int(fields[b"SigIgn"], 16) & ~_PYTHONS_OWN)
    return b"\n".join(fields.get(name, b"") for name in _STATUS)


def _scheduling(stat: bytes) -> bytes:
    fields = stat[stat.rindex(b")") + 2 :].split()
    return b" ".join(fields[place] for place in _SCHEDULING)


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - pathlib costs start-up time
    except FileNotFoundError:
        return ""  # a kind of namespace that this kernel does not have


def _label(path: str) -> bytes:
    try:
        return _read(path)
    except OSError:
        return b""  # no security module that gives labels


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
