"""What a fork's guest does first, done once in the machine that is about to be saved: QEMU keeps what it translated,
and copies of it need not translate it again. Only for machines in which nobody has seen anything yet."""

from __future__ import annotations

from contextlib import closing, suppress

from firkin.agent.client import connect
from firkin.agent.messages import ExecRefused
from firkin.manager.identity import fork_identity
from firkin.manager.machine import Machine
from firkin.store.images import ImageConfig

PATIENCE_S = 30.0


def rehearse(machine: Machine) -> None:
    """Take on an identity, which is as good as the one before, and run a program.

    Raises:
        AgentError, ExecTimeout: the guest does not follow.
    """
    link = machine.link
    identity = fork_identity(machine.record, link.mac, link, ImageConfig(), None)
    with closing(connect(machine.reach(), PATIENCE_S)) as agent:
        agent.identify(identity, PATIENCE_S)
    with suppress(ExecRefused):  # an image without it
        machine.exec("true", timeout_s=PATIENCE_S)
