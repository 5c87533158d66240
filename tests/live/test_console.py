"""The serial console of a real guest: a log with a bound and times, and people who come and go."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest

from firkin.errors import UsageError
from firkin.host.process import with_argument
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.logs import LogLine
from firkin.manager.machine import Machine
from firkin.manager.typist import type_and_wait
from firkin.spec import MachineSpec
from firkin.store.machines import State
from firkin.vmm.console import is_kept
from firkin.vmm.rotated import last_bytes

pytestmark = pytest.mark.live

SPEC = MachineSpec(image="busybox", memory_mib=128)
MIB = 2**20


@pytest.fixture
def machine(firkin: Firkin) -> Iterator[Machine]:
    with firkin.run(SPEC) as machine:
        type_and_wait(machine, "", r"[#$] ?$", timeout_s=20)
        yield machine


def environ(machine: Machine) -> dict[str, str]:
    return os.environ | {"FIRKIN_HOME": str(machine._context.paths.home)}


def firkin_argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "firkin.cli", *words]


def say(machine: Machine, text: str) -> None:
    type_and_wait(machine, f"echo {text[:1]}''{text[1:]}\n", rf"{text}\r?\n", timeout_s=10)


class Screen:
    """`firkin console` on a terminal of its own."""

    def __init__(self, machine: Machine, *options: str) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (10, 80))
        self.modes = termios.tcgetattr(self.slave)
        self.shown = b""
        self.process = subprocess.Popen(
            firkin_argv("console", *options, machine.name), stdin=self.slave, stdout=self.slave, stderr=self.slave,
            env=environ(machine), start_new_session=True,
        )  # fmt: skip
        os.set_blocking(self.master, False)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def expect(self, text: bytes) -> None:
        def seen() -> bool:
            with suppress(BlockingIOError):
                self.shown += os.read(self.master, 65536)
            return text in self.shown

        assert wait_until(seen, timeout_s=15, interval_s=0.01), self.shown

    def expect_end(self, returncode: int = 0) -> None:
        assert self.process.wait(10) == returncode
        assert termios.tcgetattr(self.slave) == self.modes


def test_two_people_see_the_screen_and_each_others_keys(machine: Machine) -> None:
    say(machine, "scrollback")
    with Screen(machine) as one, Screen(machine) as two:
        for screen in (one, two):
            screen.expect(b"attached to ttyS0")
            screen.expect(b"scrollback")
        one.press(b"echo one$((40 + 2))\r")
        two.expect(b"one42")
        two.press(b"echo two$((40 + 3))\r")
        one.expect(b"two43")
        one.press(b"\x10")
        time.sleep(0.1)
        one.press(b"\x11")
        one.expect_end()
        two.press(b"echo still$((1 + 1))\r")
        two.expect(b"still2")


def test_keys_before_the_detach_keys_are_passed_on(machine: Machine) -> None:
    with Screen(machine, "--detach-keys", "a,ctrl-x") as screen:
        screen.expect(b"attached")
        screen.press(b"echo pa$((2 + 1))\ra\x18")
        screen.expect_end()
    assert wait_until(lambda: b"\npa3" in last_bytes(machine.console_log, 1000), timeout_s=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(machine: Machine, number: signal.Signals) -> None:
    with Screen(machine) as screen:
        screen.expect(b"attached")
        assert wait_until(lambda: termios.tcgetattr(screen.slave) != screen.modes, timeout_s=5)
        screen.process.send_signal(number)
        screen.expect_end(128 + number)


def test_the_machines_end_ends_the_session(machine: Machine) -> None:
    with Screen(machine) as screen:
        screen.expect(b"attached")
        screen.press(b"reboot -f\r")
        screen.expect(b"ended: ")
        screen.expect_end()


def test_a_pipe_types_and_its_end_ends_nothing(machine: Machine) -> None:
    script = "".join(f"echo line{number}:$((1 + 1))\n" for number in range(200)) + "sleep 1\nreboot -f\n"
    done = subprocess.run(
        firkin_argv("console", machine.name), input=script.encode(), capture_output=True, env=environ(machine),
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"line0:2" in done.stdout
    assert b"line199:2" in done.stdout


def test_a_machine_that_is_stopped_or_unknown_is_told(machine: Machine) -> None:
    machine.kill()
    for name, why in ((machine.name, "not running"), ("nosuch", "not found")):
        done = subprocess.run(
            firkin_argv("console", name), capture_output=True, text=True, env=environ(machine), check=False
        )
        assert done.returncode == 2
        assert why in done.stderr
        assert "hint: " in done.stderr


def test_a_flood_is_bounded_and_a_reader_follows_through_its_rotations(firkin: Firkin) -> None:
    settings = replace(firkin.context.settings, console_log_mib=1)
    with Firkin(settings) as small, small.run(SPEC) as machine:
        lines = machine.logs(follow=True, since=time.time())
        flood = "yes 0123456789abcdef0123456789abcdef | head -n 100000; echo e''nd"
        machine.exec("sh", "-c", f"({flood}) >/dev/ttyS0 &")
        seen = sum(line.text == b"0123456789abcdef0123456789abcdef\r\n" for line in takewhile(is_not_the_end, lines))
        assert seen >= 99_990  # the shell's prompt may cut one
        sizes = {path.name: path.stat().st_size for path in machine.console_log.parent.glob("console.log*")}
        assert sizes["console.log"] <= MIB
        assert sizes["console.log.1"] <= MIB
        assert sum(sizes.values()) <= 2 * MIB * 5 // 4
        assert [line.text for line in machine.logs(tail=1)] == [b"end\r\n"]


def is_not_the_end(line: LogLine) -> bool:
    return line.text != b"end\r\n"


def test_a_killed_keeper_is_replaced_and_the_machine_lives(open_firkin: Callable[[], Firkin], machine: Machine) -> None:
    (keeper,) = with_argument("--machine", machine.id)
    os.kill(keeper.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_kept(machine.run_folder), timeout_s=5)
    assert machine.exec("sh", "-c", "echo mean''while >/dev/ttyS0").returncode == 0
    open_firkin()
    assert is_kept(machine.run_folder)
    say(machine, "afterwards")
    text = b"".join(line.text for line in machine.logs())
    assert text.index(b"meanwhile") < text.index(b"afterwards")


def test_a_guest_whose_console_nobody_reads_goes_on_when_somebody_does(
    open_firkin: Callable[[], Firkin], machine: Machine
) -> None:
    (keeper,) = with_argument("--machine", machine.id)
    os.kill(keeper.pid, signal.SIGKILL)
    machine.exec("sh", "-c", "(yes full | head -c 1000000; echo d''one) >/dev/ttyS0 2>&1 &")
    time.sleep(1)
    assert machine.exec("echo", "alive", timeout_s=10).stdout == b"alive\n"
    open_firkin()
    assert wait_until(lambda: b"done" in last_bytes(machine.console_log, 100), timeout_s=20)


def test_lines_have_times_and_are_chosen_by_them(machine: Machine) -> None:
    say(machine, "first")
    time.sleep(0.3)
    between = time.time()
    time.sleep(0.3)
    say(machine, "second")
    lines = list(machine.logs(since=between))
    assert any(line.text == b"second\r\n" for line in lines)
    assert not any(line.text == b"first\r\n" for line in lines)
    assert all(between < line.time < time.time() for line in lines)
    assert not any(line.text == b"second\r\n" for line in machine.logs(until=between))
    done = subprocess.run(
        firkin_argv("logs", "-t", "--since", "1h", "-n", "2", machine.name), capture_output=True, text=True,
        env=environ(machine), check=True,
    )  # fmt: skip
    stamped = re.fullmatch(r"(\S+)Z second\n(\S+)Z [^\n]+", done.stdout.replace("\r", ""))
    assert stamped, done.stdout


def test_following_ends_with_the_machine_and_has_its_last_words(machine: Machine) -> None:
    follower = subprocess.Popen(firkin_argv("logs", "-f", machine.name), stdout=subprocess.PIPE, env=environ(machine))
    time.sleep(0.5)
    machine.exec("sh", "-c", "echo last words >/dev/ttyS0")
    machine.stop()
    said, _ = follower.communicate(timeout=10)
    assert b"last words" in said
    assert machine.record.state is State.STOPPED
    assert b"last words" in b"".join(line.text for line in machine.logs())
    assert not is_kept(machine.run_folder)


def test_nonsense_is_refused(machine: Machine) -> None:
    with pytest.raises(UsageError, match="'yesterday' is no time"):
        list(machine.logs(since="yesterday"))
    done = subprocess.run(
        firkin_argv("logs", "--engine", "-t", machine.name), capture_output=True, text=True, env=environ(machine)
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the VMM's log has its own times")


def test_keepers_and_files_go_with_the_machine(firkin: Firkin) -> None:
    with firkin.run(SPEC) as machine:
        home: Path = machine.console_log.parent
        assert len(with_argument("--machine", machine.id)) == 1
    assert with_argument("--machine", machine.id) == []
    assert not home.exists()
