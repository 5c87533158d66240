"""The console's keeper: what it is given becomes a log of bounded size, with times, that outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firkin.host.process import ProcessRef, reap, with_argument
from firkin.host.wait import wait_until
from firkin.vmm.console import KEEPER, OUTPUT, Console, end, is_kept
from firkin.vmm.rotated import RotatedLog, last_bytes

LIMIT = 2**18
SOURCES = Path(__file__).parents[3] / "keeper"


class Line:
    """A console whose engine is a program that sleeps; the test speaks for it."""

    def __init__(self, folder: Path, keeper: Path = KEEPER) -> None:
        self.console = Console(machine_id=folder.name, run=folder, home=folder, limit=LIMIT, keeper=keeper)
        self.console.make()
        with self.console.engine_ends() as (stdin, stdout):
            self.engine = subprocess.Popen(["sleep", "60"], stdin=stdin, stdout=stdout)
        started = ProcessRef.of(self.engine.pid)
        assert started is not None
        self.ref = started
        self.console.keep(self.ref)

    def say(self, data: bytes) -> None:
        with (self.console.run / OUTPUT).open("wb", buffering=0) as line:
            view = memoryview(data)
            while view:
                view = view[line.write(view) :]

    def keeper(self) -> ProcessRef:
        found: list[ProcessRef] = []

        def shows() -> bool:  # a program that has only just been started has no command line yet
            found[:] = with_argument("--machine", self.console.machine_id)
            return bool(found)

        soon(shows)
        (keeper,) = found
        return keeper

    def stop(self) -> None:
        self.engine.kill()
        self.engine.wait()
        end(self.console.machine_id, self.console.run)

    def log(self) -> bytes:
        return last_bytes(self.console.log, 4 * LIMIT)


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keeper with checks for undefined behaviour, which end it."""
    build = tmp_path_factory.mktemp("keeper")
    subprocess.run(["make", "-s", "-C", SOURCES, "native", f"BUILD={build}"], check=True)
    return build / "firkin-keeper-native"


@pytest.fixture(params=["as it is", "checked"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    keeper: Path = request.getfixturevalue("checked") if request.param == "checked" else KEEPER
    line = Line(tmp_path, keeper)
    yield line
    line.stop()
    reap()


def soon(condition: Callable[[], bool]) -> None:
    assert wait_until(condition, timeout_s=5, interval_s=0.002)


def test_what_is_said_is_in_the_log_and_the_last_words_too(line: Line) -> None:
    line.say(b"one\r\n\x00\xff")
    soon(lambda: line.log() == b"one\r\n\x00\xff")
    line.say(b"last")
    line.stop()
    assert line.log() == b"one\r\n\x00\xfflast"
    assert not is_kept(line.console.run)


def test_the_log_has_a_bound_and_keeps_the_end(line: Line) -> None:
    said = b"".join(b"line %06d of many\n" % number for number in range(100_000))
    line.say(said)
    soon(lambda: line.log().endswith(said[-100:]))
    sizes = {path.name: path.stat().st_size for path in line.console.home.glob("console.log*")}
    assert all(size <= LIMIT for size in sizes.values())
    assert sizes["console.log.times"] <= LIMIT // 4
    assert said.endswith(line.log())
    assert len(line.log()) > LIMIT


def test_lines_have_their_times_across_a_rotation(line: Line) -> None:
    began = time.time()
    line.say(b"early\n")
    soon(lambda: line.log() == b"early\n")
    time.sleep(0.1)
    line.say(b"late\n" + b"x" * (LIMIT - 200))
    soon(lambda: len(line.log()) == LIMIT - 200 + 11)
    line.say(b"\nafter\n")
    soon(lambda: line.log().endswith(b"after\n"))
    with RotatedLog(line.console.log) as log:
        runs = []
        while found := log.read():
            runs += found
    assert runs[0].data == b"early\n"
    assert 0 <= runs[0].time - began < 1
    assert 0.09 <= runs[1].time - runs[0].time < 2
    assert [run.time for run in runs] == sorted(run.time for run in runs)


def test_a_killed_keeper_harms_nobody_and_the_next_goes_on(line: Line) -> None:
    line.say(b"before\n")
    soon(lambda: line.log() == b"before\n")
    os.kill(line.keeper().pid, signal.SIGKILL)
    soon(lambda: not is_kept(line.console.run))
    line.say(b"meanwhile\n")
    assert line.engine.poll() is None
    line.console.keep(line.ref)
    soon(lambda: line.log() == b"before\nmeanwhile\n")


def test_there_is_one_keeper(line: Line) -> None:
    first = line.keeper()
    line.console.keep(line.ref)
    assert line.keeper() == first


def test_what_cannot_be_written_is_lost_and_the_log_says_so(line: Line) -> None:
    line.say(b"before\n")
    soon(lambda: line.log() == b"before\n")
    log = line.console.log
    line.console.home.joinpath("console.log.1").mkdir()  # what cannot be moved away cannot be gone on with either
    line.say(b"x" * LIMIT)
    soon(lambda: log.stat().st_size > LIMIT - 2**17)
    time.sleep(0.05)
    kept = log.stat().st_size
    line.console.home.joinpath("console.log.1").rmdir()
    line.say(b"after\n")
    soon(lambda: line.log().endswith(b"after\n"))
    lost = len(b"before\n") + LIMIT - kept
    assert b"\r\n[firkin: %d bytes of the console are lost: " % lost in line.log()


def test_the_keeper_is_small_and_may_nothing(line: Line) -> None:
    status = Path(f"/proc/{line.keeper().pid}/status")
    soon(lambda: "Seccomp:\t2" in status.read_text())
    fields = dict(field.split(":\t", 1) for field in status.read_text().splitlines() if ":\t" in field)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["VmRSS"].split()[0]) < (300 if line.console.keeper == KEEPER else 10_000)


@pytest.mark.parametrize("argv", [[], ["--machine", "m", "--engine", "9", "--limit", "1"], ["--limit"] * 6])
def test_a_wrong_command_line_is_refused(argv: list[str]) -> None:
    done = subprocess.run([KEEPER, *argv], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: firkin-keeper")
