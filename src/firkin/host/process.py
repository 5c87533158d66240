"""Processes by pid and start time, so that a reused pid is never mistaken for the one we knew."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firkin.errors import HostError
from firkin.host.wait import wait_until

if TYPE_CHECKING:
    import subprocess

PROC = Path("/proc")

# Popen objects of children that outlive their spawning: dropping one while its process runs is a ResourceWarning.
_let_go: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """One process for all time: its pid and its start in clock ticks since boot (proc(5), stat field 22)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessRef | None:
        """The process that has this pid now; None when there is none, or only a zombie."""
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        return ProcessRef.of(self.pid) == self


def _stat(pid: int) -> list[str] | None:
    """Fields 3 and later of /proc/PID/stat."""
    return None if (found := _name_and_stat(pid)) is None else found[1]


def _name_and_stat(pid: int) -> tuple[str, list[str]] | None:
    """Fields 2 and later of /proc/PID/stat; the name may hold spaces and parentheses."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    end = text.rindex(")")
    return text[text.index("(") + 1 : end], text[end + 2 :].split()


def all_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def with_argument(option: str, value: str) -> list[ProcessRef]:
    """Processes whose command line holds `option value` side by side."""
    wanted = b"\0%s\0%s\0" % (option.encode(), value.encode())
    found = [ProcessRef.of(pid) for pid in all_pids() if wanted in _command_line(pid)]
    return [ref for ref in found if ref is not None]


def show_as(argv: Sequence[str]) -> None:
    """Have /proc show another command line for this process, written over the one it was started with.

    Raises:
        HostError: it is longer than that one.
    """
    start, end = _own_arguments()
    text = b"".join(os.fsencode(word) + b"\0" for word in argv)
    if len(text) > end - start:
        raise HostError(f"{argv[0]}: a command line of {len(text)} bytes does not fit into {end - start}")
    # By the file and not the address: should the numbers be wrong, this fails and nothing crashes.
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(memory, text.ljust(end - start, b"\0"), start)
    finally:
        os.close(memory)


def _own_arguments() -> tuple[int, int]:
    """Where in memory our command line begins and ends."""
    stat = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(stat, 4096)
    finally:
        os.close(stat)
    start, end = text[text.rindex(b")") + 2 :].split()[45:47]  # fields 48 and 49
    return int(start), int(end)


def _command_line(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def descendants(ref: ProcessRef) -> list[ProcessRef]:
    """Children, their children, and so on, as they are now; and a QEMU that belongs to one without being its child."""
    parents: dict[int, list[int]] = {}
    for pid in all_pids():
        if (parent := _owner(pid)) is not None:
            parents.setdefault(parent, []).append(pid)
    family, queue = [], [ref.pid]
    while queue:
        children = parents.get(queue.pop(), [])
        queue += children
        family += [child for child in map(ProcessRef.of, children) if child is not None]
    return family


def _owner(pid: int) -> int | None:
    """The parent; but a copied QEMU says itself whose it is, or that it sleeps and is nobody's (twin/src/serve.c)."""
    found = _name_and_stat(pid)
    if found is None or found[0] == "qemu-asleep":
        return None
    engine = found[0].removeprefix("qemu-of-")
    return int(engine) if engine != found[0] and engine.isdecimal() else int(found[1][1])


def kill(ref: ProcessRef, *, timeout_s: float = 5.0) -> None:
    """End a process and its descendants at once, and see them gone.

    Raises:
        HostError: one is still there after `timeout_s` seconds.
    """
    doomed = [ref, *descendants(ref)]
    for process in doomed:
        _signal(process, signal.SIGKILL)
    if not wait_until(
        lambda: not any(_reaped_alive(process) for process in doomed), timeout_s=timeout_s, interval_s=0.002
    ):
        raise HostError(f"process {ref.pid}: survives SIGKILL", hint=f"cat /proc/{ref.pid}/stack")


def _signal(ref: ProcessRef, number: int) -> None:
    """Signal exactly this process: the pidfd pins it between the check and the kill."""
    try:
        fd = os.pidfd_open(ref.pid)
    except ProcessLookupError:
        return
    try:
        if ref.alive():
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def _reaped_alive(ref: ProcessRef) -> bool:
    """`alive`, after collecting the body if it is our own child."""
    with suppress(ChildProcessError):  # not ours: its own parent, or init, collects it
        os.waitpid(ref.pid, os.WNOHANG)
    return ref.alive()


def let_go(child: subprocess.Popen[bytes]) -> None:
    """A child that is to outlive us."""
    _let_go.append(child)


def reap() -> None:
    """Collect those that were let go and have ended."""
    for child in list(_let_go):
        if child.poll() is not None:
            with suppress(ValueError):  # another thread saw it too
                _let_go.remove(child)
