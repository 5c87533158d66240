"""Programs in a real guest, from the library and from the command line."""

from __future__ import annotations

import fcntl
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from firkin.agent.messages import ExecRefused, ExitStatus
from firkin.errors import AgentError, ExecFailed, ExecTimeout
from firkin.host.wait import wait_until
from firkin.manager.machine import Machine

pytestmark = pytest.mark.live

FIRKIN = Path(sys.executable).with_name("firkin")


def cli(home: Path, *argv: str, stdin: bytes = b"", timeout_s: float = 30) -> subprocess.CompletedProcess[bytes]:
    """Run `firkin` as a person does."""
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    return subprocess.run(
        [FIRKIN, *argv], env=environ, input=stdin, capture_output=True, timeout=timeout_s, check=False
    )


@contextmanager
def on_terminal(
    home: Path, *argv: str, rows: int = 33, columns: int = 77
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`firkin` on a terminal of its own: the process, and the terminal's other side."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [FIRKIN, *argv], env=os.environ | {"FIRKIN_HOME": str(home)}, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(fd: int, wanted: bytes, timeout_s: float = 20) -> bytes:
    """What a terminal shows, up to and with `wanted`."""
    seen, deadline = b"", time.monotonic() + timeout_s
    while wanted not in seen:
        assert time.monotonic() < deadline, f"no {wanted!r} in {seen!r}"
        try:
            seen += os.read(fd, 4096)
        except OSError as error:
            raise AssertionError(f"ended without {wanted!r}: {seen!r}") from error
    return seen


def runs(machine: Machine, command: str) -> bool:
    """Whether some process of the guest has this command line."""
    return f" {command}\n" in machine.exec("ps").text


def test_a_program_gets_what_was_asked_for(box: Machine) -> None:
    script = "id -u; id -g; pwd; echo $WHO; cat; echo oops >&2; exit 3"
    done = box.exec("sh", "-c", script, env={"WHO": "me & you"}, cwd="/tmp", user="1000:7", input=b"\x00\xff")
    assert done.stdout == b"1000\n7\n/tmp\nme & you\n\x00\xff"
    assert (done.stderr, done.returncode, done.truncated) == (b"oops\n", 3, False)


def test_check_raises_with_the_end_of_stderr(box: Machine) -> None:
    assert box.exec("echo", "fine", check=True).text == "fine\n"
    with pytest.raises(ExecFailed, match="exited with 5:\nbad luck"):
        box.exec("sh", "-c", "echo bad luck >&2; exit 5", check=True)


@pytest.mark.parametrize(
    ("argv", "options", "returncode", "message"),
    [
        (["no-such"], {}, 127, "no-such: No such file"),
        (["/etc/passwd"], {}, 126, "/etc/passwd: Permission denied"),
        (["true"], {"cwd": "/nowhere"}, 126, "working directory /nowhere"),
        (["true"], {"user": "nobody-at-all"}, 126, "user nobody-at-all"),
    ],
)
def test_what_cannot_start_says_why(
    box: Machine, argv: list[str], options: dict[str, str], returncode: int, message: str
) -> None:
    with pytest.raises(ExecRefused, match=message) as caught:
        box.exec(*argv, cwd=options.get("cwd"), user=options.get("user"))
    assert caught.value.returncode == returncode


def test_a_timeout_kills_the_group(box: Machine) -> None:
    began = time.monotonic()
    with pytest.raises(ExecTimeout, match=r"still running after 0\.3 s"):
        box.exec("sh", "-c", "sleep 71 & sleep 71", timeout_s=0.3)
    assert time.monotonic() - began < 10
    assert not runs(box, "sleep 71")


def test_output_streams_as_it_comes_and_input_goes_in(box: Machine) -> None:
    with box.start("cat", stdin=True) as cat:
        for word in (b"one", b"two"):
            cat.write(word)
            output = cat.read(timeout_s=10)
            assert output is not None
            assert output.data == word
        with pytest.raises(TimeoutError, match="no output within"):
            cat.read(timeout_s=0.05)
        cat.close_stdin()
        assert cat.wait(timeout_s=10) == ExitStatus(code=0)


def test_a_slow_reader_slows_the_program_and_no_other(box: Machine) -> None:
    with box.start("cat", "/dev/zero") as flood:
        time.sleep(0.3)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert box.exec("echo", "fine").stdout == b"fine\n"
        time.sleep(0.3)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024  # KiB
        assert flood.read(timeout_s=10) is not None


def test_sixty_four_at_once(box: Machine) -> None:
    with ThreadPoolExecutor(64) as pool:
        numbers = list(pool.map(lambda number: box.exec("echo", str(number), timeout_s=60).text, range(64)))
    assert numbers == [f"{number}\n" for number in range(64)]


def test_more_than_a_connection_takes_at_once(box: Machine) -> None:
    sleepers = [box.start("sleep", "60") for _ in range(100)]
    assert box.exec("echo", "fine").stdout == b"fine\n"
    for sleeper in sleepers:
        sleeper.kill()
    assert {sleeper.wait(timeout_s=30) for sleeper in sleepers} == {ExitStatus(signal=signal.SIGKILL)}


def test_a_thousand_in_a_row_leave_nothing(box: Machine) -> None:
    with box.agent() as agent:
        pid = agent.hello.pid

    def agent_state() -> tuple[int, int]:
        """(descriptors, KiB of memory) of the agent."""
        script = f"ls /proc/{pid}/fd | wc -l; grep VmRSS /proc/{pid}/status"
        count, _, rss_kib, _ = box.exec("sh", "-c", script).text.split()
        return int(count), int(rss_kib)

    for _ in range(50):
        box.exec("true")
    fds, rss_kib = agent_state()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        assert box.exec("true").returncode == 0
    assert agent_state()[0] == fds
    assert agent_state()[1] - rss_kib < 64
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 1024


def test_a_kept_program_outlives_its_connection(box: Machine) -> None:
    program = box.start("sh", "-c", "echo first; read word; echo got $word; exit 4", stdin=True, kept=True)
    first = program.read(timeout_s=10)
    assert first is not None
    box.close()
    assert wait_until(lambda: [kept.pid for kept in box.kept()] == [program.pid], timeout_s=10)
    again = box.attach(program.pid)
    with pytest.raises(AgentError, match="attached"):
        box.attach(program.pid)
    again.write(b"word\n")
    done = again.result(timeout_s=10)
    assert (done.stdout, done.returncode) == (b"got word\n", 4)
    assert box.kept() == []
    with pytest.raises(AgentError, match="process 1"):
        box.attach(1)


def test_a_port_of_the_guest_is_reached_without_its_network(box: Machine) -> None:
    with box.start("nc", "-l", "-p", "7777", "-e", "cat"):
        deadline = time.monotonic() + 20
        while True:
            try:
                connection = box.dial(7777)
                break
            except AgentError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with connection:
            connection.write(b"through vsock")
            output = connection.read(timeout_s=10)
            assert output is not None
            assert output.data == b"through vsock"
            connection.close_stdin()
            assert connection.wait(timeout_s=10) == ExitStatus(code=0)
    with pytest.raises(AgentError, match=r"port 7778 of the guest: .*[Rr]efused"):
        box.dial(7778)


def test_the_command_line_gives_streams_and_codes(box: Machine, shared_home: Path) -> None:
    done = cli(shared_home, "exec", "-i", "box", "sh", "-c", "cat; echo err >&2; exit 7", stdin=b"in\x00")
    assert (done.stdout, done.stderr, done.returncode) == (b"in\x00", b"err\n", 7)
    assert cli(shared_home, "exec", "box", "cat", stdin=b"not passed").stdout == b""
    assert cli(shared_home, "exec", "box", "--", "echo", "-i").stdout == b"-i\n"
    options = ["-e", "A=1", "-e", "HOME", "-w", "/tmp", "-u", "1000:7"]
    done = cli(shared_home, "exec", *options, "box", "sh", "-c", "echo $A $HOME $PWD $(id -u)")
    assert done.stdout.decode().split() == ["1", os.environ["HOME"], "/tmp", "1000"]


@pytest.mark.parametrize(
    ("argv", "returncode", "message"),
    [
        (["box", "no-such"], 127, b"error: no-such: No such file"),
        (["box", "/etc/passwd"], 126, b"error: /etc/passwd: Permission denied"),
        (["box", "sh", "-c", "kill -9 $$"], 137, b""),
        (["--timeout", "0.3", "box", "sleep", "60"], 124, b"error: sleep: still running after 0.3 s; killed"),
        (["nobody", "true"], 2, b"error: machine 'nobody': not found\nhint: firkin ls"),
        (["-e", "=x", "box", "true"], 2, b"is not NAME=VALUE"),
        (["box"], 2, b"COMMAND"),
    ],
)
def test_the_command_line_says_what_failed(
    box: Machine, shared_home: Path, argv: list[str], returncode: int, message: bytes
) -> None:
    done = cli(shared_home, "exec", *argv)
    assert (done.returncode, message in done.stderr) == (returncode, True), done.stderr
    assert b"Traceback" not in done.stderr


def test_a_terminal_has_our_size_and_follows_it(box: Machine, shared_home: Path) -> None:
    with on_terminal(shared_home, "exec", "-it", "box", "sh") as (process, terminal):
        read_until(terminal, b"# ")
        os.write(terminal, b"stty size; echo do''ne\r")
        assert b"33 77" in read_until(terminal, b"done")
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 88, 0, 0))
        os.kill(process.pid, signal.SIGWINCH)
        time.sleep(0.2)
        os.write(terminal, b"stty size; echo do''ne\r")
        assert b"44 88" in read_until(terminal, b"done")
        os.write(terminal, b"sleep 60\r")
        time.sleep(0.3)
        os.write(terminal, b"\x03exit 6\r")
        assert process.wait(20) == 6


def test_signals_are_passed_on(box: Machine, shared_home: Path) -> None:
    process = subprocess.Popen(
        [FIRKIN, "exec", "box", "sh", "-c", "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.05; done"],
        env=os.environ | {"FIRKIN_HOME": str(shared_home)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
        process.terminate()
        assert output.read() == b"asked\n"
    assert process.wait(20) == 9


def test_what_runs_ends_when_its_firkin_is_killed(box: Machine, shared_home: Path) -> None:
    process = subprocess.Popen(
        [FIRKIN, "exec", "box", "sh", "-c", "echo ready; sleep 72"],
        env=os.environ | {"FIRKIN_HOME": str(shared_home)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
        process.kill()
    process.wait()
    assert wait_until(lambda: not runs(box, "sleep 72"), timeout_s=10)


def test_detach_and_attach_from_the_command_line(box: Machine, shared_home: Path) -> None:
    script = "echo before; read word; echo got $word; exit 5"
    pid = cli(shared_home, "exec", "-di", "box", "sh", "-c", script).stdout.decode().strip()
    listed = cli(shared_home, "attach", "box").stdout.decode()
    assert f"{pid}" in listed
    assert "running" in listed
    done = cli(shared_home, "attach", "box", pid, stdin=b"word\n")
    assert (done.stdout, done.returncode) == (b"before\ngot word\n", 5)
    gone = cli(shared_home, "attach", "box", pid)
    assert gone.returncode == 125
    assert gone.stderr.startswith(f"error: process {pid}: ".encode())


def test_keys_leave_a_program_on_its_terminal_to_itself(box: Machine, shared_home: Path) -> None:
    pid = cli(shared_home, "exec", "-dit", "box", "sh").stdout.decode().strip()
    with on_terminal(shared_home, "attach", "box", pid) as (process, terminal):
        read_until(terminal, b"# ")
        os.write(terminal, b"echo sta''ys\r\x10")
        read_until(terminal, b"stays")
        os.write(terminal, b"\x11")
        assert f"attach box {pid}" in read_until(terminal, b"again").decode()
        assert process.wait(20) == 0
    with on_terminal(shared_home, "attach", "box", pid) as (process, terminal):
        os.write(terminal, b"exit 8\r")
        assert process.wait(20) == 8


def test_a_closed_output_ends_the_program(box: Machine, shared_home: Path) -> None:
    process = subprocess.Popen(
        [FIRKIN, "exec", "box", "yes", "73"], env=os.environ | {"FIRKIN_HOME": str(shared_home)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    process.wait(20)
    assert process.stderr is not None
    with process.stderr as errors:
        assert errors.read() == b""
    assert wait_until(lambda: not runs(box, "yes 73"), timeout_s=10)


def test_threads_come_and_go_on_one_connection(box: Machine) -> None:
    until = time.monotonic() + 2

    def work(number: int) -> int:
        rounds = 0
        while time.monotonic() < until:
            want = os.urandom(1 + number * 3000)
            assert box.exec("cat", input=want, timeout_s=60).stdout == want
            rounds += 1
        return rounds

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(12)))
