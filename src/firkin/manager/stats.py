"""What a machine uses, from three sources side by side: the guest's word, the engine's counts, the host's processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from firkin.agent import stats as guest_stats
from firkin.agent.client import AgentConnection, connect
from firkin.agent.stats import GuestProcess, GuestStats
from firkin.errors import AgentError, EngineError, GuestError
from firkin.host.process import ProcessRef
from firkin.host.usage import HostUsage, usage
from firkin.paths import VSOCK_SOCKET
from firkin.vmm import metrics
from firkin.vmm.metrics import EngineStats

GUEST_TIMEOUT_S = 2.0
MAX_ANSWER = 16 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What went on between two readings, `seconds` apart. None where one of them does not know.

    Processor time is in percent of one processor: a guest that keeps two vcpus busy shows 200.
    """

    seconds: float
    cpu_percent: float | None = None
    host_cpu_percent: float | None = None
    disk_read_bytes_per_s: float | None = None
    disk_written_bytes_per_s: float | None = None
    net_received_bytes_per_s: float | None = None
    net_sent_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """One reading of a machine, at `monotonic_s` of this host's monotonic clock.

    `guest` is what the guest says of itself, which a hostile one may make up. `engine` is what its VMM carried for it,
    `host` what VMM and guest together cost this host. A source is None when it did not answer; `problems` says why.
    """

    monotonic_s: float
    guest: GuestStats | None
    engine: EngineStats | None
    host: HostUsage
    problems: tuple[str, ...] = ()

    @property
    def carried(self) -> EngineStats | GuestStats | None:
        """Whoever tells best what disks and network carried: the engine, else the guest."""
        return self.engine or self.guest

    def since(self, earlier: Stats) -> Rates:
        """How fast things went after an earlier reading of the same machine."""
        seconds = self.monotonic_s - earlier.monotonic_s
        cpu_s = self.host.cpu_s - earlier.host.cpu_s
        carried = {
            f"{what}_per_s": _per_second(self.carried, earlier.carried, what, seconds)
            for what in ("disk_read_bytes", "disk_written_bytes", "net_received_bytes", "net_sent_bytes")
        }
        return Rates(
            seconds=seconds,
            cpu_percent=_guest_cpu_percent(self.guest, earlier.guest),
            host_cpu_percent=round(cpu_s / seconds * 100, 1) if seconds > 0 and cpu_s >= 0 else None,
            **carried,
        )


def _guest_cpu_percent(now: GuestStats | None, before: GuestStats | None) -> float | None:
    if now is None or before is None:
        return None
    # Linux guesses the time of an idle processor, and may take some of it back.
    busy, idle = max(0.0, now.cpu_busy_s - before.cpu_busy_s), max(0.0, now.cpu_idle_s - before.cpu_idle_s)
    return round(busy / (busy + idle) * 100 * now.vcpus, 1) if busy + idle else 0.0


def _per_second(
    now: EngineStats | GuestStats | None, before: EngineStats | GuestStats | None, what: str, seconds: float
) -> float | None:
    if now is None or type(now) is not type(before) or seconds <= 0:
        return None
    grown: int = getattr(now, what) - getattr(before, what)
    return grown / seconds if grown >= 0 else None


class Meter:
    """Reads one machine again and again over a connection of its own, so that a thread may have it to itself."""

    def __init__(self, engine: ProcessRef, run_folder: Path) -> None:
        self._engine = engine
        self._run_folder = run_folder
        self._connection: AgentConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hang_up()

    def read(self) -> Stats:
        """Ask all three sources; one that fails does not spoil the others, and none is waited for for long."""
        problems: list[str] = []
        stats = Stats(
            monotonic_s=time.monotonic(),
            host=usage(self._engine),
            guest=_told(self._ask_guest, problems),
            engine=_told(lambda: metrics.read(self._run_folder), problems),
            problems=tuple(problems),
        )
        if stats.guest is None:
            self._hang_up()  # the next one is asked anew
        return stats

    def _ask_guest(self) -> GuestStats:
        if self._connection is None:
            self._connection = connect(self._run_folder / VSOCK_SOCKET, GUEST_TIMEOUT_S)
        return guest_stats.parse_stats(ask(self._connection, "files", *guest_stats.FILES))

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _told(source: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return source()
    except (GuestError, EngineError) as error:
        problems.append(str(error))
        return None


def top(agent: AgentConnection) -> list[GuestProcess]:
    """The guest's processes, as its kernel lists them.

    Raises:
        GuestError: it does not answer in time, or what it says makes no sense.
    """
    uptime_s = guest_stats.parse_uptime(ask(agent, "files", "/proc/uptime"))
    return guest_stats.parse_processes(ask(agent, "processes"), uptime_s)


def ask(agent: AgentConnection, *words: str) -> bytes:
    """One of the agent's own functions, and what it answers.

    Raises:
        GuestError: it does not answer in time, fails, or says more than any guest has to say.
    """
    with agent.task(*words, timeout_s=GUEST_TIMEOUT_S) as task:
        result = task.result(timeout_s=GUEST_TIMEOUT_S, max_output=MAX_ANSWER)
    if result.returncode != 0:
        reason = result.stderr[:200].decode(errors="replace").strip()
        raise AgentError(f"agent: {words[0]}: {reason or f'failed with {result.returncode}'}")
    if result.truncated:
        raise AgentError(f"agent: {words[0]}: more than {MAX_ANSWER >> 20} MiB")
    return result.stdout
