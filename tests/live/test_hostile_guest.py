"""Real guests at their limits: the right code, a clear message, bounded memory, nothing hung."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from firkin.agent.messages import ExecRefused
from firkin.errors import AgentError, ExecTimeout, FirkinError, GuestError
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec
from firkin.store.machines import State
from firkin.vmm.boot import Call
from firkin.vmm.client import ApiClient

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]


@pytest.fixture
def machine(firkin: Firkin) -> Iterator[Machine]:
    with firkin.run(MachineSpec(image="busybox", memory_mib=128)) as machine:
        yield machine


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def agent_pid(machine: Machine) -> int:
    with machine.agent() as agent:
        return agent.hello.pid


def test_each_way_not_to_start_has_its_code_and_its_words(machine: Machine) -> None:
    machine.exec("sh", "-c", "cd /tmp; echo text > text; echo '#!/nowhere' > lost; chmod +x text lost", check=True)
    refusals = {
        "nothing": (127, "nothing: No such file or directory"),
        "/bin/nothing": (127, "/bin/nothing: No such file or directory"),
        "/etc/passwd": (126, "/etc/passwd: Permission denied"),
        "/tmp": (126, "/tmp: Permission denied"),
        "/etc/passwd/x": (127, "/etc/passwd/x: Not a directory"),
        "/tmp/text": (126, "/tmp/text: Exec format error"),
        "/tmp/lost": (127, "/tmp/lost: No such file or directory"),
        "": (127, ": No such file or directory"),
    }
    for program, (code, words) in refusals.items():
        with pytest.raises(ExecRefused) as error:
            machine.exec(program)
        assert (error.value.returncode, str(error.value)) == (code, words)
    with pytest.raises(ExecRefused, match="user bob: no such user"):
        machine.exec("true", user="bob")
    with pytest.raises(ExecRefused, match="working directory /nowhere: No such file"):
        machine.exec("true", cwd="/nowhere")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGPIPE])
def test_a_program_killed_by_a_signal_has_128_and_its_number(machine: Machine, number: signal.Signals) -> None:
    assert machine.exec("sh", "-c", f"kill -{number} $$").returncode == 128 + number


def test_out_of_memory_the_program_dies_and_the_agent_lives(machine: Machine) -> None:
    agent = agent_pid(machine)
    for _ in range(3):
        assert machine.exec("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", timeout_s=25).returncode == 137
    assert machine.exec("echo", "alive", timeout_s=10).text == "alive\n"
    assert agent_pid(machine) == agent


def test_a_full_disk_is_the_programs_error_not_the_agents(machine: Machine) -> None:
    full = machine.exec("sh", "-c", "cat /dev/zero > /root/filler; echo code $?", timeout_s=40)
    assert full.text == "code 1\n"
    assert b"No space left on device" in full.stderr
    assert machine.exec("sh", "-c", "echo x > /root/more").returncode == 1
    with pytest.raises(FirkinError, match="No space left on device"):
        machine.fs.write_bytes("/root/more", b"x" * 65536)
    machine.exec("rm", "/root/filler", check=True)
    assert machine.exec("sh", "-c", "echo x > /root/more").returncode == 0


def test_a_fork_bomb_that_hits_its_limit_leaves_the_agent_usable(machine: Machine) -> None:
    bomb = "ulimit -u 200; f() { f | f & }; f; sleep 2; echo over"
    with machine.start("sh", "-c", bomb, user="nobody") as program:
        assert machine.exec("echo", "alive", timeout_s=20).text == "alive\n"
        program.kill()
    machine.exec("sh", "-c", "for i in 1 2 3 4 5; do kill -9 -1; done", user="nobody", timeout_s=20)
    assert machine.exec("echo", "alive", timeout_s=20).text == "alive\n"


def test_a_frozen_agent_is_told_apart_from_a_slow_program(machine: Machine) -> None:
    program = machine.start("sleep", "100")
    agent = agent_pid(machine)
    thaw = machine.start("sh", "-c", f"sleep 0.2; kill -STOP {agent}; sleep 8; kill -CONT {agent}")
    time.sleep(1)
    with within(5), pytest.raises(AgentError, match=r"does not answer within 0\.5 s") as error:
        machine.exec("true", timeout_s=0.5)
    assert "paused" in error.value.hint
    with within(5), pytest.raises(ExecTimeout, match=r"sleep: still running after 0\.5 s"):
        program.wait(timeout_s=0.5)
    thaw.wait(30)
    assert machine.exec("echo", "thawed", timeout_s=10).text == "thawed\n"


def turn(machine: Machine, state: str) -> None:
    with ApiClient(machine.run_folder / "api.sock") as api:
        api.call(Call("PATCH", "/vm", {"state": state}))


def test_a_paused_engine_stops_no_clock_of_ours(machine: Machine) -> None:
    with machine.start("cat", stdin=True) as program:
        turn(machine, "Paused")
        with within(5), pytest.raises(AgentError, match=r"does not answer within 0\.5 s"):
            machine.exec("true", timeout_s=0.5)
        with within(5), pytest.raises(TimeoutError, match="no output within"):
            program.read(timeout_s=0.5)
        with within(5), pytest.raises(TimeoutError, match="does not read its input"):
            program.write(bytes(4 * 1024 * 1024), timeout_s=0.5)
        turn(machine, "Resumed")
        assert machine.exec("echo", "resumed", timeout_s=10).text == "resumed\n"
        assert program.read(timeout_s=10) is not None
    turn(machine, "Paused")
    with within(10):
        machine.stop(timeout_s=1)
    assert machine.record.state is State.STOPPED


def test_a_connection_cut_while_programs_run_tells_all_of_them(machine: Machine) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            machine.exec("sleep", "100", timeout_s=60)
        except GuestError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    with within(15):
        machine.kill()
        for thread in threads:
            thread.join(15)
    assert len(errors) == 4
    assert machine.record.state is State.STOPPED


FLOOD = """
import resource, sys
from firkin.manager.firkin import Firkin
from firkin.settings import load

def high_water_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

with Firkin(load()) as firkin:
    machine = firkin.machine(sys.argv[1])
    machine.exec("true")
    before = high_water_kib()
    done = machine.exec("sh", "-c", "head -c 60000000 /dev/zero; head -c 20000000 /dev/zero >&2", max_output=1000000)
    assert (len(done.stdout), len(done.stderr), done.truncated) == (1000000, 1000000, True)
    slow = machine.start("cat", "/dev/zero")
    machine.exec("sleep", "1")  # and nobody reads the flood
    assert slow.read() is not None
    slow.close()
    print(high_water_kib() - before)
"""


def test_a_flood_of_output_is_held_to_what_was_asked_for(machine: Machine, home: object) -> None:
    environ = {"FIRKIN_HOME": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    command = [sys.executable, "-c", FLOOD, machine.name]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=80)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 * 1024  # KiB, of 76 MiB that were said, and an endless flood
