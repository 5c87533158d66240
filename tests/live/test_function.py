"""Python functions that run in machines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import firkin
from firkin.functions.function import Function
from firkin.manager.firkin import Firkin
from firkin.settings import Settings, load

pytestmark = [pytest.mark.live, pytest.mark.slow]

Remote = Callable[..., Function[..., Any]]


@pytest.fixture
def settings(home: Path) -> Settings:
    return load({"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build"})


@pytest.fixture
def remote(settings: Settings) -> Iterator[Remote]:
    """Decorate, and remove the machines at the end."""
    made: list[Function[..., Any]] = []

    def decorate(function: Callable[..., Any], **options: Any) -> Function[..., Any]:
        made.append(firkin.function(settings=settings, memory_mib=128, **options)(function))
        return made[-1]

    yield decorate
    for function in made:
        function.close()


def add(a: int, b: int) -> dict[str, Any]:
    with open("/proc/version") as file:  # noqa: PTH123
        return {"sum": a + b, "where": os.uname().nodename, "kernel": file.read()}


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def records(settings: Settings) -> list[str]:
    with Firkin(settings) as opened:
        return [record.id for record in opened.records()]


def test_a_call_runs_in_a_machine_that_stays_warm(remote: Remote, settings: Settings) -> None:
    function = remote(add)
    first = function.remote(1, 2)
    assert first["sum"] == 3
    assert first["where"] != os.uname().nodename
    assert first["kernel"] != Path("/proc/version").read_text()
    began = time.monotonic()
    cold = [function(n, 1)["sum"] for n in range(20)]
    warm_s = (time.monotonic() - began) / 20
    assert cold == list(range(1, 21))
    assert warm_s < 0.25
    assert len(records(settings)) == 1
    function.close()
    assert records(settings) == []


def test_calls_run_at_once_in_several_machines(remote: Remote, settings: Settings) -> None:
    function = remote(lambda n: (n, os.uname().nodename), machines=2)
    answers = list(function.map(range(8)))
    assert [n for n, _ in answers] == list(range(8))
    assert len({name for _, name in answers}) == 2
    assert len(records(settings)) == 2


def test_errors_take_their_values_place_when_asked(remote: Remote) -> None:
    function = remote(lambda n: 1 / n)
    one, error, other = function.map([1, 0, 2], return_exceptions=True)
    assert (one, other) == (1.0, 0.5)
    assert isinstance(error, ZeroDivisionError)
    assert "In the guest" in error.__notes__[0]
    with pytest.raises(ZeroDivisionError):
        list(function.map([1, 0]))


def test_output_passes_through(remote: Remote, capsys: pytest.CaptureFixture[str]) -> None:
    remote(lambda: os.system("echo shell; echo error >&2"))()
    assert capsys.readouterr() == ("shell\n", "error\n")


def test_after_a_timeout_the_next_call_works_in_the_same_machine(remote: Remote, settings: Settings) -> None:
    function = remote(sleep, timeout_s=3.0)
    assert function(0) == "slept"
    [machine] = records(settings)
    with pytest.raises(firkin.ExecTimeout):
        function(60)
    assert function(0.01) == "slept"
    assert records(settings) == [machine]


def test_a_function_that_eats_all_memory_is_told_what_helps(remote: Remote) -> None:
    function = remote(lambda size: len(bytearray(b"x") * size))
    with pytest.raises((firkin.FunctionFailed, MemoryError)) as failure:
        function(2**30)
    if isinstance(failure.value, firkin.FunctionFailed):
        assert "memory_mib" in failure.value.hint
    assert function(1000) == 1000


def test_a_machine_that_was_removed_is_replaced(remote: Remote, settings: Settings) -> None:
    function = remote(add)
    function(1, 1)
    [former] = records(settings)
    with Firkin(settings) as opened:
        opened.machine(former).remove(force=True)
    time.sleep(1.1)  # from then on an idle worker is asked whether it lives
    assert function(2, 2)["sum"] == 4
    assert records(settings) not in ([], [former])


def test_an_image_without_python_is_named(remote: Remote, settings: Settings) -> None:
    with pytest.raises(firkin.HostError, match="cannot run Python") as refusal:
        remote(add, image="busybox")(1, 2)
    assert "image='python'" in refusal.value.hint


SCRIPT = """
import firkin, os, sys
from firkin.settings import load

class Unfit(Exception):
    pass

@firkin.function(memory_mib=128, raises=[Unfit])
def work(n):
    if n < 0:
        raise Unfit(n)
    print("working on", n)
    return n * factor

factor = 3
print(work.remote(14))
try:
    work(-1)
except Unfit as error:
    print("unfit", error.args)
{end}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("sys.exit(4)", 4), ("os.kill(os.getpid(), 9)", -9)])
def test_a_script_leaves_no_machine_however_it_ends(settings: Settings, tmp_path: Path, end: str, code: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(end=end))
    environ = os.environ | {"FIRKIN_HOME": str(settings.paths.home), "FIRKIN_KERNEL": "build"}
    done = subprocess.run([sys.executable, script], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, "")
    if code != -9:  # its stdout was still in its buffer
        assert done.stdout == "working on 14\n42\nunfit (-1,)\n"
    assert records(settings) == []
