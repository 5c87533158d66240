"""Forks of a guest with systemd, whose parts remember who they were: what follows by itself, and what must be told."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from firkin.agent.client import connect
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(240)]

UP = 'until [ "$(systemctl is-system-running --wait 2>/dev/null)" = running ]; do sleep 0.2; done'
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def say(machine: Machine, script: str) -> str:
    return machine.exec("bash", "-c", script, timeout_s=60, check=True).text


@pytest.fixture
def parent(firkin: Firkin) -> Iterator[Machine]:
    with firkin.run(MachineSpec(name="deb", image="debian", memory_mib=256)) as machine:
        say(machine, f"{UP}; logger -t probe before; journalctl --sync")
        yield machine


def test_a_fork_of_systemd_is_another_machine_to_itself(parent: Machine) -> None:
    (fork,) = parent.fork()
    with fork:
        every_program_sees_one_boot_id(parent, fork)
        systemd_and_d_bus_agree_on_the_machine_id(parent, fork)
        the_journal_follows_when_it_is_told(fork)
        assert say(fork, "systemctl is-system-running; systemctl show -P NFailedUnits") == "running\n0\n"
        (child,) = fork.fork()
        with child:
            every_program_sees_one_boot_id(fork, child)
            assert say(child, f"grep -c {BOOT_ID} /proc/self/mounts") == "1\n"
        assert f"Static hostname: {fork.name}\n" in say(fork, "hostnamectl")


def every_program_sees_one_boot_id(parent: Machine, fork: Machine) -> None:
    """Also services in mount namespaces of their own, unless they have a /proc of their own, as hostnamed does."""
    look = f"for process in /proc/[0-9]*; do [ -e $process/exe ] && cat $process/root{BOOT_ID}; done | sort -u"
    seen = say(fork, look).split()
    assert len(seen) == 1
    assert seen != say(parent, look).split()
    assert say(fork, "systemd-id128 boot-id").strip() == seen[0].replace("-", "")


def systemd_and_d_bus_agree_on_the_machine_id(parent: Machine, fork: Machine) -> None:
    look = "systemd-id128 machine-id; cat /etc/machine-id /var/lib/dbus/machine-id"
    ids = set(say(fork, look).split())
    assert len(ids) == 1
    assert re.fullmatch("[0-9a-f]{32}", ids.copy().pop())
    assert ids.isdisjoint(say(parent, "cat /etc/machine-id").split())


def the_journal_follows_when_it_is_told(fork: Machine) -> None:
    """journald reads both ids as it starts: docs/forks.md says what to do."""
    read = "journalctl --sync; journalctl -q -t probe -o cat"
    assert say(fork, f"logger -t probe after; {read}; {read} -b || true") == "before\nafter\n"
    assert say(fork, f"systemctl restart systemd-journald; logger -t probe anew; {read} -b") == "anew\n"


def test_the_agent_calls_itself_by_the_new_name(parent: Machine) -> None:
    (fork,) = parent.fork(names=["another"])
    with fork, connect(fork.reach(), 10.0) as agent:
        assert agent.hello.hostname == "another"
