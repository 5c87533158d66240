"""Verbs that watch machines: stats beside each other as they change, top for what runs in one."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import click
import msgspec

from firkin.agent.stats import GuestProcess
from firkin.cli.output import duration, print_json, print_table, printable, size
from firkin.errors import UsageError
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.manager.stats import Meter, Rates, Stats

TITLES = ("NAME", "CPU %", "HOST CPU %", "MEM USED / TOTAL", "HOST MEM", "DISK READ / WRITTEN", "NET IN / OUT", "TASKS")
PROCESS_TITLES = ("PID", "USER", "STATE", "%CPU", "MEMORY", "TIME", "COMMAND")
UNKNOWN = "-"
PATIENCE_S = 5.0  # one reading takes four at most
FIRST_LOOK_S = 0.3  # then everybody who is well has answered
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
CLEAR, HOME_AND_CLEAR = "\x1b[2J", "\x1b[H\x1b[J"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a watcher tells: a machine's numbers, or None when it has ended."""

    machine_id: str
    name: str
    stats: Stats | None
    rates: Rates | None = None


class Watcher(threading.Thread):
    """Reads one machine each interval on a thread of its own: one that is frozen holds up no other."""

    def __init__(self, machine: Machine, interval_s: float, tell: queue.SimpleQueue[Reading]) -> None:
        super().__init__(daemon=True)  # nobody waits for a guest that does not answer
        self._id, self._name = machine.id, machine.name
        self._engine, self._run_folder = machine.process(), machine.run_folder
        self._interval_s = interval_s
        self._tell = tell

    def run(self) -> None:
        before: Stats | None = None
        with Meter(self._engine, self._run_folder) as meter:
            while self._engine.alive():
                stats = meter.read()
                self._tell.put(Reading(self._id, self._name, stats, stats.since(before) if before else None))
                before = stats
                time.sleep(max(0.0, stats.monotonic_s + self._interval_s - time.monotonic()))
        self._tell.put(Reading(self._id, self._name, None))


class Watch:
    """All machines that somebody looks at, and the newest reading of each."""

    def __init__(self, firkin: Firkin, names: tuple[str, ...], interval_s: float) -> None:
        self._firkin, self._interval_s = firkin, interval_s
        self._told: queue.SimpleQueue[Reading] = queue.SimpleQueue()
        self._everybody = not names
        self.newest: dict[str, Reading | None] = {}
        for machine in map(firkin.machine, names):
            self._add(machine)
        self.look_around()

    def look_around(self) -> None:
        """Where no machine was named, those that were started in the meantime join."""
        if not self._everybody:
            return
        for record in self._firkin.records():
            if record.up and record.id not in self.newest:
                with suppress(UsageError):  # it ended in this moment
                    self._add(self._firkin.machine(record.id))

    def _add(self, machine: Machine) -> None:
        if machine.id not in self.newest:
            Watcher(machine, self._interval_s, self._told).start()
            self.newest[machine.id] = None

    def readings(self, seconds: float) -> Iterator[Reading]:
        """What comes in within so many seconds. A machine that ended is told as such once, and is then forgotten."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                reading = self._told.get(timeout=left)
                self._note(reading)
                yield reading

    def _note(self, reading: Reading) -> None:
        if reading.stats is None:
            del self.newest[reading.machine_id]
        else:
            self.newest[reading.machine_id] = reading

    @property
    def over(self) -> bool:
        """Whether nothing more can come."""
        return not self._everybody and not self.newest


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--no-stream", is_flag=True, help="Print one reading and end.")
@click.option("-n", "--interval", "interval_s", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True,
              metavar="SECONDS", help="Time from one reading to the next.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each reading of each machine.")
def stats(names: tuple[str, ...], no_stream: bool, interval_s: float, as_json: bool) -> None:
    """Show what machines use, all that run if none is named.

    CPU % is of one processor: 200 when a guest keeps two vcpus busy. CPU %, MEM and TASKS are the guest's own word;
    HOST CPU % and HOST MEM are what its VMM costs here; the engine counts what disks and network carried.

    \b
    firkin stats                        a table that renews itself, ctrl-c ends it
    firkin stats --no-stream web db     one reading of two machines
    firkin stats --json | jq .rates     for programs
    """
    with Firkin() as firkin, suppress(KeyboardInterrupt):
        watch = Watch(firkin, names, interval_s)
        if no_stream:
            _once(watch, interval_s, as_json=as_json)
        elif as_json:
            _lines(watch, interval_s)
        else:
            _table(watch, interval_s)


def _once(watch: Watch, interval_s: float, *, as_json: bool) -> None:
    """Two readings of each machine, since rates need two."""
    waiting = set(watch.newest)
    readings = watch.readings(interval_s + PATIENCE_S)
    while waiting and (reading := next(readings, None)) is not None:
        if reading.stats is None or reading.rates is not None:
            waiting.discard(reading.machine_id)
    if as_json:
        for newest in filter(None, watch.newest.values()):
            _print_line(newest)
    else:
        _print(watch)


def _lines(watch: Watch, interval_s: float) -> None:
    while not watch.over:
        for reading in watch.readings(interval_s):
            _print_line(reading)
        watch.look_around()


def _print_line(reading: Reading) -> None:
    if reading.stats is not None:
        names = ("guest", "engine", "host", "problems")
        line = {"time": round(time.time(), 3), "name": reading.name, "id": reading.machine_id, "rates": reading.rates}
        click.echo(msgspec.json.encode(line | {name: getattr(reading.stats, name) for name in names}))


def _table(watch: Watch, interval_s: float) -> None:
    seconds = min(interval_s, FIRST_LOOK_S)
    with _screen() as begin:
        while not watch.over:
            for _ in watch.readings(seconds):
                continue
            begin()
            _print(watch)
            watch.look_around()
            seconds = interval_s


@contextmanager
def _screen() -> Iterator[Callable[[], None]]:
    """What is called before each table: on a terminal it takes the place of the one before."""
    if not sys.stdout.isatty():
        yield click.echo
        return
    click.echo(HIDE_CURSOR + CLEAR, nl=False)
    try:
        yield lambda: click.echo(HOME_AND_CLEAR, nl=False)
    finally:
        click.echo(SHOW_CURSOR, nl=False)


def _print(watch: Watch) -> None:
    newest = [reading for reading in watch.newest.values() if reading is not None]
    print_table(TITLES, [_row(reading.name, reading.stats, reading.rates) for reading in newest if reading.stats])
    for reading in newest:
        for problem in reading.stats.problems if reading.stats else ():
            click.echo(printable(f"{reading.name}: {problem}"), err=True)


def _row(name: str, stats: Stats, rates: Rates | None) -> tuple[str, ...]:
    guest, carried = stats.guest, stats.carried
    return (
        name,
        _percent(rates.cpu_percent if rates else None),
        _percent(rates.host_cpu_percent if rates else None),
        f"{size(guest.memory_used_bytes)} / {size(guest.memory_total_bytes)}" if guest else UNKNOWN,
        size(stats.host.memory_bytes),
        f"{size(carried.disk_read_bytes)} / {size(carried.disk_written_bytes)}" if carried else UNKNOWN,
        f"{size(carried.net_received_bytes)} / {size(carried.net_sent_bytes)}" if carried else UNKNOWN,
        str(guest.tasks) if guest else UNKNOWN,
    )


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f}"


@click.command()
@click.argument("name", metavar="NAME")
@click.option("-a", "--all", "everything", is_flag=True, help="The kernel's own threads too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, the kernel's threads included.")
def top(name: str, everything: bool, as_json: bool) -> None:
    """List what runs in a machine, whatever tools its image has.

    %CPU is of one vcpu over the whole life of the process, as `ps` has it.
    """
    with Firkin() as firkin:
        processes = firkin.machine(name).top()
    if as_json:
        print_json(processes)
    else:
        shown = [process for process in processes if everything or not process.kernel]
        print_table(PROCESS_TITLES, [_process_row(process) for process in shown])


def _process_row(process: GuestProcess) -> tuple[object, ...]:
    return (
        process.pid,
        process.user_id,
        process.state,
        process.cpu_percent,
        size(process.memory_bytes),
        duration(process.cpu_s),
        process.command,
    )
