"""Images without an init of their own: firkin-init as process 1 does for their program what a container's init does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firkin.errors import AgentError, BootTimeout, GuestError
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec
from firkin.store.machines import State

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

Run = Callable[..., Machine]
STAY = "while :; do sleep 0.2; done"


@pytest.fixture
def run(firkin: Firkin) -> Run:
    """Boots busybox with a script for its program, and whatever else an image's config says."""

    def run_it(*entrypoint: str, env: tuple[str, ...] = (), image_env: tuple[str, ...] = (), **config: Any) -> Machine:
        plain = firkin.image("busybox")
        changed = msgspec.structs.replace(plain.config, entrypoint=entrypoint, env=image_env, **config)
        firkin.context.images.put(msgspec.structs.replace(plain, name="custom", config=changed))
        return firkin.run(MachineSpec(image="custom", memory_mib=128, env=env))

    return run_it


def said(machine: Machine) -> str:
    """The console so far."""
    return machine.console_log.read_text(errors="replace").replace("\r\n", "\n")


def says(machine: Machine, text: str, timeout_s: float = 20.0) -> bool:
    return wait_until(lambda: text in said(machine), timeout_s=timeout_s)


@pytest.mark.timeout(120)
def test_thousands_of_orphans_leave_no_zombie(run: Run) -> None:
    orphans = "i=0; while [ $i -lt 1500 ]; do (true &); i=$((i+1)); done; echo all $i"
    zombies = "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"
    with run("/bin/sh", "-c", f"{orphans}; {STAY}") as machine:
        assert says(machine, "all 1500", 60)  # those of process 1
        assert machine.exec("sh", "-c", orphans, timeout_s=60).text == "all 1500\n"  # those of the agent
        assert wait_until(lambda: machine.exec("sh", "-c", zombies).text == "0\n", timeout_s=5)


LOOK = "echo =; echo $A $B $C; pwd; id; ulimit -n; ulimit -Hn; ulimit -u; cat /proc/self/oom_score_adj; echo =;"


@pytest.mark.parametrize(
    ("user", "who"),
    [
        ("root", "uid=0(root) gid=0(root) groups=0(root)"),
        ("nobody", "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"),
        ("nobody:tty", "uid=65534(nobody) gid=5(tty) groups=5(tty)"),
        ("1234", "uid=1234 gid=0(root) groups=0(root)"),
        ("1234:5678", "uid=1234 gid=5678 groups=5678"),
    ],
)
def test_a_program_runs_as_its_image_says(run: Run, user: str, who: str) -> None:
    image = {"image_env": ("A=image", "B=image"), "working_dir": "/var", "user": user}
    expected = ["image spec spec", "/var", who, "1024", "524288", "unlimited", "0"]
    with run("/bin/sh", "-c", LOOK + STAY, env=("B=spec", "C=spec"), **image) as machine:
        assert wait_until(lambda: said(machine).count("=\n") == 2, timeout_s=10)
        assert said(machine).split("=\n")[1].splitlines() == expected
        assert machine.exec("sh", "-c", LOOK).text.split("=\n")[1].splitlines() == expected


def test_the_machine_is_furnished_as_a_container_is(run: Run) -> None:
    checks = {
        "mounts": "awk '{print $2, $3}' /proc/mounts | sort | tr '\\n' ','",
        "cgroup": "cd /sys/fs/cgroup; echo +pids > cgroup.subtree_control; mkdir a && cat a/pids.max",
        "controllers": "grep -owE 'cpu|memory|pids|io' /sys/fs/cgroup/cgroup.controllers | sort | tr '\\n' ' '",
        "tmp": "stat -c %a /tmp /dev/shm | tr '\\n' ' '; echo x > /tmp/a && cp /tmp/a /dev/shm/b && cat /dev/shm/b",
        "loopback": "ping -c 1 -W 5 127.0.0.1 | grep -c '1 packets received'",
        "devices": "for d in null zero full random urandom tty ptmx fd/0 stdin; do [ -e /dev/$d ] || echo no $d; done",
        "hosts": "ping -c 1 -W 5 localhost > /dev/null; echo $?; hostname; cat /etc/hostname",
    }
    with run("/bin/sh", "-c", STAY) as machine:
        assert {name: machine.exec("sh", "-c", check).text for name, check in checks.items()} == {
            "mounts": "/ overlay,/dev devtmpfs,/dev/pts devpts,/dev/shm tmpfs,/proc proc,"
            "/proc/sys/kernel/random/boot_id tmpfs,/run tmpfs,/sys sysfs,/sys/fs/cgroup cgroup2,",
            "cgroup": "max\n",
            "controllers": "cpu io memory pids ",
            "tmp": "1777 1777 x\n",
            "loopback": "1\n",
            "devices": "",
            "hosts": f"0\n{machine.name}\n{machine.name}\n",
        }


def test_signals_reach_the_program(run: Run) -> None:
    traps = "".join(f"trap 'echo got {name}' {name};" for name in ("HUP", "QUIT", "WINCH"))
    with run("/bin/sh", "-c", f"{traps} trap 'echo bye; exit 3' TERM; echo set; {STAY}") as machine:
        assert says(machine, "set\n")
        for name in ("HUP", "QUIT", "WINCH"):
            assert machine.exec("kill", f"-{name}", "1").returncode == 0
            assert says(machine, f"got {name}\n")
        machine.stop()
        assert "bye\n" in said(machine)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("printf half; exit 3", 3)]
)
def test_the_exit_code_is_known_afterwards(run: Run, firkin: Firkin, script: str, code: int) -> None:
    machine = run("/bin/sh", "-c", script)  # however short its life, its boot succeeded
    assert machine.wait(timeout_s=20) == code
    with Firkin(firkin.context.settings) as again:
        assert again.machine(machine.id).record.state is State.STOPPED
        assert again.machine(machine.id).exit_code == code


def test_the_command_line_waits_for_the_end_and_tells_the_code(home: Path) -> None:
    environ = {"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def firkin(*argv: str) -> str:
        command = [sys.executable, "-m", "firkin.cli", *argv]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=50).stdout

    try:
        assert firkin("run", "-d", "--name", "job", "-m", "128", "busybox", "--", "sh", "-c", "exit 7") == "job\n"
        assert firkin("wait", "job") == "7\n"
        assert '"exit_code": 7' in firkin("inspect", "job")
        assert "stopped" in firkin("ls")
    finally:
        firkin("rm", "-f", "job")


@pytest.mark.parametrize(
    ("entrypoint", "config", "why"),
    [
        ("/bin/nothing", {}, "entrypoint /bin/nothing: No such file or directory"),
        ("nothing", {}, "entrypoint nothing: No such file or directory"),
        ("/etc/passwd", {}, "entrypoint /etc/passwd: Permission denied"),
        ("/bin/sh", {"user": "bob"}, "user bob: no such user or group in the image"),
        ("/bin/sh", {"user": "root:bobs"}, "user root:bobs: no such user or group in the image"),
        ("/bin/sh", {"working_dir": "/nowhere"}, "folder /nowhere: No such file or directory"),
    ],
)
def test_a_program_that_cannot_start_ends_the_machine_and_says_why(
    run: Run, firkin: Firkin, entrypoint: str, config: dict[str, str], why: str
) -> None:
    with pytest.raises(BootTimeout) as error:
        run(entrypoint, **config)
    assert str(error.value).splitlines()[0] == f"the machine ended before its agent called: {why}"
    assert firkin.records() == []


def agent_pid(machine: Machine) -> int:
    with machine.agent() as agent:
        return agent.hello.pid


def test_a_killed_agent_comes_back(run: Run) -> None:
    with run("/bin/sh", "-c", STAY) as machine, machine.start("sleep", "100") as program:
        first = agent_pid(machine)
        for _ in range(3):
            with pytest.raises(AgentError):  # it takes along whoever does it
                machine.exec("sh", "-c", f"kill -9 {agent_pid(machine)}; sleep 100", timeout_s=10)
            assert machine.exec("echo", "back", timeout_s=10).text == "back\n"
        with pytest.raises(AgentError, match=r"hung up|broke"):
            program.wait(10)
        assert agent_pid(machine) != first
        assert "firkin-init: agent was killed by signal 9: it is started again\n" in said(machine)


def test_what_will_not_end_is_killed_in_time(run: Run) -> None:
    stubborn = f"trap '' TERM HUP; echo set; {STAY}"
    with run("/bin/sh", "-c", stubborn) as machine:
        assert says(machine, "set\n")
        program = machine.start("sh", "-c", stubborn)
        assert program.read(10) is not None
        began = time.monotonic()
        machine.stop(timeout_s=20)
        assert 5 < time.monotonic() - began < 15
        assert "reboot was asked for: the machine ends\n" in said(machine)


def test_waiting_has_an_end(run: Run) -> None:
    with run("/bin/sh", "-c", STAY) as machine:
        with pytest.raises(GuestError, match=r"still running after 0\.2 s"):
            machine.wait(timeout_s=0.2)
        assert machine.exit_code is None
        machine.kill()
        assert machine.wait(timeout_s=1) is None  # it did not end by itself
