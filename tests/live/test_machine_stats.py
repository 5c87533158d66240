"""What machines use and what runs in them, from real guests: honest, frozen, lying."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firkin.errors import AgentError, UsageError
from firkin.fcapi.instance import VmState
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.manager.stats import Meter
from firkin.paths import METRICS
from firkin.spec import MachineSpec
from firkin.vmm.boot import API_SOCKET, Call
from firkin.vmm.client import ApiClient

pytestmark = pytest.mark.live

SPEC = MachineSpec(image="busybox", memory_mib=128)


@pytest.fixture
def machine(firkin: Firkin) -> Machine:
    return firkin.run(SPEC)


def argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "firkin.cli", *words]


def cli(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    return subprocess.run(argv(*words), env=environ, capture_output=True, text=True, check=False, timeout=60)


def put_state(machine: Machine, state: VmState) -> None:
    with ApiClient(machine.run_folder / API_SOCKET) as api:
        api.call(Call("PATCH", "/vm", {"state": state}))


@contextmanager
def paused(machine: Machine) -> Iterator[None]:
    put_state(machine, VmState.PAUSED)
    try:
        yield
    finally:
        put_state(machine, VmState.RESUMED)


def test_a_reading_has_the_guests_word_the_engines_count_and_the_hosts_cost(machine: Machine) -> None:
    stats = machine.stats()
    assert stats.problems == ()
    assert stats.guest is not None
    assert stats.engine is not None
    total = int(machine.exec("sed", "-n", "s/MemTotal: *//p", "/proc/meminfo").text.split()[0]) << 10
    assert stats.guest.memory_total_bytes == total
    assert 1 << 20 < stats.guest.memory_used_bytes < total
    assert (stats.guest.vcpus, stats.guest.uptime_s > 0, stats.guest.tasks > 10) == (1, True, True)
    assert stats.engine.disk_read_bytes >= stats.guest.disk_read_bytes > 100_000
    assert stats.engine.vsock_sent_bytes > 0
    assert 10 << 20 < stats.host.memory_bytes < 512 << 20
    assert stats.host.cpu_s > 0


def test_work_shows_in_the_rates(machine: Machine) -> None:
    with machine.start("sh", "-c", "while :; do :; done"):
        first = machine.stats()
        gateway = str(machine.network.gateway.ip)
        assert machine.exec("ping", "-c", "5", "-i", "0.2", "-s", "1000", "-W", "5", gateway).returncode == 0
        second = machine.stats()
    rates = second.since(first)
    assert rates.cpu_percent is not None
    assert rates.cpu_percent > 70
    assert rates.host_cpu_percent is not None
    assert rates.host_cpu_percent > 20
    assert rates.net_sent_bytes_per_s is not None
    assert rates.net_sent_bytes_per_s * rates.seconds > 5 * 1000
    assert first.engine is not None
    assert second.engine is not None
    assert second.engine.net_received_bytes - first.engine.net_received_bytes > 5 * 1000


def test_a_paused_machine_has_a_cost_and_no_word_of_its_own(machine: Machine) -> None:
    with Meter(machine.process(), machine.run_folder) as meter:
        assert meter.read().guest is not None
        with paused(machine):
            began = time.monotonic()
            stats = meter.read()
            assert time.monotonic() - began < 10
            assert stats.guest is None
            assert len(stats.problems) == 1
            assert stats.engine is not None
            assert stats.host.memory_bytes > 10 << 20
            with pytest.raises(AgentError):
                machine.top()
        assert meter.read().guest is not None
    assert machine.exec("true").returncode == 0


def test_an_engine_that_hangs_costs_two_seconds(machine: Machine) -> None:
    engine = machine.process()
    with Meter(engine, machine.run_folder) as meter:
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            stats = meter.read()
            assert time.monotonic() - began < 10
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        assert (stats.guest, stats.engine) == (None, None)
        assert len(stats.problems) == 2
        assert stats.host.memory_bytes > 10 << 20
        again = meter.read()
    assert again.problems == ()


@pytest.mark.parametrize(("file", "text"), [("meminfo", "MemTotal: lots"), ("stat", "cpu"), ("loadavg", "\x1b[2J")])
def test_a_guest_that_lies_is_told_so_and_spoils_nothing(machine: Machine, file: str, text: str) -> None:
    script = f"printf '{text}' > /root/lie && mount --bind /root/lie /proc/{file}"
    assert machine.exec("sh", "-c", script).returncode == 0
    stats = machine.stats()
    assert stats.guest is None
    assert stats.problems[0].startswith(f"guest: /proc/{file} makes no sense")
    assert stats.engine is not None


def test_top_lists_what_runs(machine: Machine) -> None:
    with machine.start("sleep", "1000") as sleep:
        found = {process.pid: process for process in machine.top()}
        mine = found[sleep.pid]
        assert (mine.argv, mine.name, mine.user_id, mine.kernel) == (("sleep", "1000"), "sleep", 0, False)
        assert mine.state in "RSD"
        assert mine.parent_pid in found
        assert mine.memory_bytes > 0
    assert found[1].argv != ()
    assert found[2].kernel


def test_a_name_does_not_reach_the_terminal(machine: Machine, home: Path) -> None:
    name = b"/root/\x1b[2J\x1b]0;owned\x07\xff"
    with started_script(machine, name):
        done = cli(home, "top", machine.name)
        told = cli(home, "top", "--json", machine.name)
    assert done.returncode == told.returncode == 0
    assert "/root/\\x1b[2J\\x1b]0;owned\\x07\\xff" in done.stdout
    assert "\x1b" not in done.stdout + told.stdout
    assert "[kthreadd]" not in done.stdout
    assert "[kthreadd]" in cli(home, "top", "--all", machine.name).stdout
    assert any(process["name"] == "kthreadd" for process in json.loads(told.stdout))


@contextmanager
def started_script(machine: Machine, name: bytes) -> Iterator[None]:
    """A program of that name, which runs for this scope."""
    write = b'printf \'#!/bin/sh\\necho runs\\nexec 1>&-\\nsleep 1000\\n:\\n\' > "$1" && chmod 755 "$1"'
    assert machine.exec("sh", "-c", write, "sh", name).returncode == 0
    with machine.start(name) as program:
        assert program.read(10.0) == (1, b"runs\n")
        yield


def test_the_table_and_the_lines(machine: Machine, firkin: Firkin, home: Path) -> None:
    other = firkin.run(SPEC)
    with paused(other):
        table = cli(home, "stats", "--no-stream")
        lines = cli(home, "stats", "--no-stream", "--json", machine.name, other.id[:8])
    rows = {row.split()[0]: row for row in table.stdout.splitlines()}
    assert set(rows) == {"NAME", machine.name, other.name}
    assert "MiB / " in rows[machine.name]
    assert rows[other.name].split()[1] == "-"
    assert f"{other.name}: " in table.stderr
    told = {each["name"]: each for each in map(json.loads, lines.stdout.splitlines())}
    assert told[machine.name]["guest"]["vcpus"] == 1
    assert told[machine.name]["rates"]["cpu_percent"] >= 0
    assert told[other.name]["guest"] is None
    assert told[other.name]["host"]["memory_bytes"] > 0


def test_who_is_not_there_or_does_not_run_is_refused(machine: Machine, home: Path) -> None:
    machine.stop()
    with pytest.raises(UsageError, match="not running"):
        machine.stats()
    for verb in ("stats", "top"):
        for name in ("nobody", machine.name):
            done = cli(home, verb, name)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr.startswith("error: machine")
            assert "hint: " in done.stderr
    assert cli(home, "stats", "--no-stream").stdout.count("\n") == 1


def test_a_stream_follows_machines_as_they_come_and_go(firkin: Firkin, home: Path) -> None:
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    watcher = subprocess.Popen(argv("stats", "--json", "-n", "0.2"), env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert watcher.stdout is not None
        machine = firkin.run(SPEC)
        seen: list[dict[str, Any]] = []
        while len(seen) < 3:
            seen.append(json.loads(watcher.stdout.readline()))
        assert {each["name"] for each in seen} == {machine.name}
        machine.remove(force=True)
        assert seen[0]["rates"] is None
        assert seen[2]["rates"]["seconds"] > 0.1
    finally:
        watcher.send_signal(signal.SIGINT)
        watcher.communicate(timeout=20)
    assert watcher.returncode == 0


def test_metrics_that_nobody_reads_do_not_pile_up(machine: Machine, open_firkin: Callable[[], Firkin]) -> None:
    carried = machine.stats().engine
    assert carried is not None
    metrics = machine.run_folder / METRICS
    line = metrics.read_bytes().splitlines()[-1]
    still = json.loads(line)
    for group in ("block", "net", "vsock"):
        still[group] = dict.fromkeys(still[group], 0)
    with metrics.open("ab") as file:
        file.write((json.dumps(still).encode() + b"\n") * 400)
    open_firkin()
    assert metrics.stat().st_blocks * 512 < 1 << 16
    after = machine.stats().engine
    assert after is not None
    assert carried.disk_read_bytes <= after.disk_read_bytes < carried.disk_read_bytes + (1 << 20)
