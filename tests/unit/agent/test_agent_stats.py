"""What a guest says of itself: read as its kernel writes it, and nothing else is believed."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.agent.stats import FILES, parse_processes, parse_stats, parse_uptime
from firkin.errors import AgentError

STAT = b"""cpu  100 5 50 2000 40 3 2 7 11 0
cpu0 60 5 25 1000 20 3 2 7 11 0
cpu1 40 0 25 1000 20 0 0 0 0 0
intr 12345 0 0
ctxt 999
"""
MEMINFO = b"""MemTotal:         114688 kB
MemFree:           90000 kB
MemAvailable:      98304 kB
SwapTotal:             0 kB
"""
DISKSTATS = b""" 254       0 vda 300 0 4096 120 10 0 64 5 0 100 125 0 0 0 0 0 0
 254       1 vda1 300 0 4000 120 10 0 64 5 0 100 125 0 0 0 0 0 0
 254      16 vdb 1 0 8 1 2 0 16 1 0 2 2
   7       0 loop0 50 0 9999 3 0 0 0 0 0 0 0 0 0 0 0 0 0
"""
NET_DEV = b"""Inter-|   Receive                                       |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:   77777    700    0    0    0     0          0         0    77777     700    0    0    0     0       0     0
  eth0:    1500     10    0    0    0     0          0         0     2500      20    0    0    0     0       0     0
docker0:   1000      5    0    0    0     0          0         0     1000       5    0    0    0     0       0     0
"""
WELL = {
    "/proc/stat": STAT,
    "/proc/meminfo": MEMINFO,
    "/proc/diskstats": DISKSTATS,
    "/proc/net/dev": NET_DEV,
    "/proc/loadavg": b"0.25 0.10 0.05 1/52 120\n",
    "/proc/uptime": b"12.50 20.00\n",
}
INIT = b"1 (init) S 0 1 1 0 -1 4194560 0 0 0 0 30 20 0 0 20 0 1 0 50 1000000 64 " + b"0 " * 27 + b"0\n"


def blob(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def answer(**changed: bytes) -> bytes:
    """An answer to `files`; a file is changed by the last part of its name."""
    return b"".join(blob(changed.get(path.rpartition("/")[2], WELL[path])) for path in FILES)


def process(pid: int, user_id: int, stat: bytes, cmdline: bytes) -> bytes:
    return struct.pack("<II", pid, user_id) + blob(stat) + blob(cmdline)


def test_a_reading_counts_disks_and_cards_once() -> None:
    stats = parse_stats(answer())
    assert (stats.vcpus, stats.uptime_s, stats.load_1m, stats.tasks) == (2, 12.5, 0.25, 52)
    assert (stats.cpu_busy_s, stats.cpu_idle_s) == (1.6, 20.4)
    assert (stats.memory_used_bytes, stats.memory_total_bytes) == (16 << 20, 112 << 20)
    assert (stats.disk_read_bytes, stats.disk_written_bytes) == (4104 * 512, 80 * 512)
    assert (stats.net_received_bytes, stats.net_sent_bytes) == (1500, 2500)


@pytest.mark.parametrize(
    "changed",
    [
        {"stat": b""},
        {"stat": b"cpu  1 2 3\n"},
        {"stat": b"cpu  -1 5 50 2000 40 3 2 7 0 0\n"},
        {"stat": b"cpu  " + b"9" * 5000 + b" 5 50 2000 40 3 2 7 0 0\n"},
        {"meminfo": b""},
        {"meminfo": b"MemTotal: 100 kB\nMemAvailable: 200 kB\n"},
        {"meminfo": b"MemTotal: 1e9 kB\nMemAvailable: 2 kB\n"},
        {"loadavg": b"nan 0 0 1/2 3\n"},
        {"loadavg": b"0.00 0.00 0.00 1/99999999999 3\n"},
        {"uptime": b"inf inf\n"},
    ],
)
def test_a_file_that_the_kernel_would_not_write_is_named(changed: dict[str, bytes]) -> None:
    with pytest.raises(AgentError, match=f"guest: /proc/{next(iter(changed))} makes no sense"):
        parse_stats(answer(**changed))


def test_a_guest_cannot_have_more_processors_than_any_machine() -> None:
    assert parse_stats(answer(stat=STAT + b"cpu2 1 \n" * 5000)).vcpus == 32


@given(st.binary(max_size=200), st.sampled_from([path.rpartition("/")[2] for path in FILES]))
def test_no_file_raises_anything_but_agent_errors(text: bytes, name: str) -> None:
    try:
        stats = parse_stats(answer(**{name: text}))
    except AgentError:
        return
    assert 0 <= stats.memory_used_bytes <= stats.memory_total_bytes
    assert min(stats.disk_read_bytes, stats.net_received_bytes, stats.tasks, stats.cpu_busy_s) >= 0


@given(st.binary(max_size=400))
def test_no_answer_raises_anything_but_agent_errors(data: bytes) -> None:
    for parse in (parse_stats, parse_uptime, lambda data: parse_processes(data, 1.0)):
        try:
            parse(data)
        except AgentError:
            continue


@pytest.mark.parametrize("line", [b" ", b"9", b"eth0: ", b" 1 1 vda", b"cpu1 ", b"1 1 "])
def test_the_longest_file_is_read_at_once(line: bytes) -> None:
    longest = (line * 65536)[:65536]
    began = time.process_time()
    for name in ("stat", "meminfo", "diskstats", "dev", "loadavg", "uptime"):
        try:
            parse_stats(answer(**{name: longest}))
        except AgentError:
            continue
    assert time.process_time() - began < 1.0


def test_lengths_that_lie_are_refused() -> None:
    for data in (b"\xff\xff\xff\xff", answer()[:-1], answer() + b"\0", b"\1"):
        with pytest.raises(AgentError):
            parse_stats(data)
    with pytest.raises(AgentError, match="cut short"):
        parse_processes(process(1, 0, INIT, b"")[:-1], 1.0)


def test_processes_are_as_ps_would_list_them() -> None:
    (init,) = parse_processes(process(1, 0, INIT, b"/sbin/init\0--log\0"), uptime_s=10.5)
    assert (init.pid, init.parent_pid, init.user_id, init.state, init.threads) == (1, 0, 0, "S", 1)
    assert (init.cpu_s, init.cpu_percent, init.started_s) == (0.5, 5.0, 0.5)
    assert (init.memory_bytes, init.kernel) == (64 * 4096, False)
    assert (init.name, init.argv, init.command) == ("init", ("/sbin/init", "--log"), "/sbin/init --log")


def test_a_kernel_thread_goes_by_its_name_in_brackets() -> None:
    stat = INIT.replace(b"1 (init)", b"2 (kthreadd)").replace(b"4194560", b"2129984")
    (thread,) = parse_processes(process(2, 0, stat, b""), 10.0)
    assert (thread.kernel, thread.argv, thread.command) == (True, (), "[kthreadd]")


def test_a_name_may_hold_what_it_likes() -> None:
    stat = INIT.replace(b"(init)", b"(a) R 7 (\n\x1b[2J)")
    (found,) = parse_processes(process(1, 0, stat, b"\xff\xfe\0a b\0\0"), 10.0)
    assert (found.name, found.state, found.parent_pid) == ("a) R 7 (\n\x1b[2J", "S", 0)
    assert found.argv == ("\\xff\\xfe", "a b")


def test_one_that_ended_meanwhile_is_left_out() -> None:
    assert parse_processes(process(9, 0, b"", b"") + process(1, 0, INIT, b""), 10.0)[0].pid == 1


@pytest.mark.parametrize(
    "stat",
    [b"1", INIT.replace(b"1 (", b"2 ("), INIT[:60], INIT.replace(b" 64 ", b" " + b"6" * 30 + b" "), b"\0" * 4096],
)
def test_a_process_that_makes_no_sense_is_named(stat: bytes) -> None:
    with pytest.raises(AgentError, match="/proc/1/stat makes no sense"):
        parse_processes(process(1, 0, stat, b""), 10.0)
