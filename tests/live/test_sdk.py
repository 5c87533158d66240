"""`import firkin` as a program uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import firkin
from firkin.settings import Settings, load

pytestmark = pytest.mark.live


@pytest.fixture
def settings(home: Path) -> Settings:
    return load({"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build"})


@pytest.fixture
def machine(settings: Settings) -> Iterator[firkin.Machine]:
    with firkin.run("busybox", memory_mib=128, settings=settings) as machine:
        yield machine


def names(settings: Settings) -> list[str]:
    with firkin.Firkin(settings) as opened:
        return [record.name for record in opened.records()]


def test_a_machine_is_there_for_its_scope(settings: Settings) -> None:
    with firkin.run("busybox", name="web", memory_mib=128, env={"GREETING": "hello"}, settings=settings) as machine:
        assert machine.exec("sh", "-c", 'echo "$GREETING from $(hostname)"').text == "hello from web\n"
        assert names(settings) == ["web"]
    assert names(settings) == []


def test_a_spec_says_it_all(settings: Settings) -> None:
    spec = firkin.MachineSpec(image="busybox", name="spec", memory_mib=128, vcpus=2)
    with firkin.run(spec, settings=settings) as machine:
        assert machine.exec("nproc").text == "2\n"
    with pytest.raises(firkin.UsageError, match="memory_mib given beside a MachineSpec"):
        firkin.run(spec, memory_mib=64, settings=settings)


def test_a_detached_machine_outlives_its_handle_and_is_found_again(settings: Settings) -> None:
    with firkin.run("busybox", name="web", memory_mib=128, detach=True, settings=settings) as machine:
        machine.exec("touch", "/root/mark")
    with firkin.get("web", settings=settings) as again:
        assert again.id == machine.id
        assert again.exec("ls", "/root").text == "mark\n"
    assert names(settings) == ["web"]
    firkin.get("web", settings=settings).remove(force=True)
    with pytest.raises(firkin.NotFound) as refusal:
        firkin.get("web", settings=settings)
    assert refusal.value.hint


SCRIPT = """
import os, firkin
machine = firkin.run("busybox", memory_mib=128)
print(machine.exec("hostname").text == machine.name + "\\n", flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("raise SystemExit(3)", 3), ("if os.fork(): os.wait()", 0), ("os.kill(os.getpid(), 9)", -9)],
)
def test_a_machine_without_a_scope_ends_with_the_program(settings: Settings, end: str, code: int) -> None:
    environ = os.environ | {"FIRKIN_HOME": str(settings.paths.home), "FIRKIN_KERNEL": "build"}
    script = [sys.executable, "-c", SCRIPT.format(end=end)]
    done = subprocess.run(script, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", code)
    if code != -9:  # what kill -9 leaves, the next firkin removes
        assert list(settings.paths.run.glob("machines/*")) == []
    assert names(settings) == []


def test_64_commands_at_once_from_as_many_threads(machine: firkin.Machine) -> None:
    machine.exec("true")
    began = time.monotonic()
    for _ in range(16):
        machine.exec("sh", "-c", "echo 1")
    each_s = (time.monotonic() - began) / 16
    barrier = threading.Barrier(64)

    def run(number: int) -> str:
        barrier.wait()
        return machine.exec("sh", "-c", f"echo {number}").text

    with ThreadPoolExecutor(64) as threads:
        began = time.monotonic()
        assert list(threads.map(run, range(64))) == [f"{number}\n" for number in range(64)]
    assert time.monotonic() - began < 3 * 64 * each_s


def test_threads_share_all_of_a_handle(machine: firkin.Machine, tmp_path: Path) -> None:
    def work(number: int) -> None:
        machine.fs.write_text(f"/root/{number}", str(number))
        machine.copy_out(f"/root/{number}", tmp_path / str(number))
        with machine.start("cat", stdin=True) as process:
            process.write(b"x" * 100_000)
            assert len(process.result().stdout) == 100_000
        assert machine.record.name == machine.name
        assert machine.stats().host is not None
        machine.fs.remove(f"/root/{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(24)))
    assert machine.fs.list("/root") == []
    assert sorted(path.read_text() for path in tmp_path.iterdir() if path.is_file()) == sorted(map(str, range(24)))


def test_machines_start_and_end_in_threads(settings: Settings) -> None:
    def live(number: int) -> str:
        with firkin.run("busybox", memory_mib=64, settings=settings) as machine:
            return machine.exec("echo", str(number)).text

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(live, range(6))) == [f"{number}\n" for number in range(6)]
    assert names(settings) == []


Act = Callable[[firkin.Machine], object]
FAILURES: list[tuple[Act, type[firkin.GuestError]]] = [
    (lambda machine: machine.exec("nosuch"), firkin.ExecRefused),
    (lambda machine: machine.exec("true", user="nosuch"), firkin.ExecRefused),
    (lambda machine: machine.exec("false", check=True), firkin.ExecFailed),
    (lambda machine: machine.exec("sleep", "9", timeout_s=0.2), firkin.ExecTimeout),
    (lambda machine: machine.fs.read_bytes("/nosuch"), firkin.GuestFileError),
    (lambda machine: machine.dial(9), firkin.AgentError),
]


def test_errors_are_of_one_tree_and_leave_the_handle_usable(machine: firkin.Machine) -> None:
    for act, error in FAILURES:
        with pytest.raises(error) as failure:
            act(machine)
        assert isinstance(failure.value, firkin.FirkinError)
    assert machine.exec("true").returncode == 0
