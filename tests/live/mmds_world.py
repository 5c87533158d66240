"""The metadata service on a real tap: a thread carries frames between its network stack and a kernel's."""

from __future__ import annotations

import fcntl
import os
import random
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from net_world import namespace

from firkin.engine.mmds.service import Mmds
from firkin.engine.mmds.stack import NetworkStack
from firkin.host import netns, tun

TAP = "tap0"
_HEADER_SIZE = 10
_NEEDS_CSUM = 1
_TUNSETOFFLOAD = 0x400454D0
_CSUM_AND_TSO4 = 0x01 | 0x02


class World:
    """A namespace whose kernel plays the guest."""

    def __init__(self, name: str, stack: NetworkStack, loss: random.Random | None) -> None:
        """With `loss` every tenth frame is dropped, both ways."""
        self._loss = loss
        self.name = name
        self.stack = stack
        self.partial_checksums = self.passed_on = self.lost = 0

    def run(self, *argv: str, timeout_s: float = 30.0) -> str:
        command = ("ip", "netns", "exec", self.name, *argv)
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s).stdout

    def curl(self, *argv: str, timeout_s: float = 30.0) -> str:
        return self.run("curl", "-sS", "--max-time", str(timeout_s), *argv)

    def carry(self, fd: int, stopped: threading.Event) -> None:
        """Move frames until told to stop."""
        while not stopped.is_set():
            tick_s = self.stack.next_tick_s()
            wait_s = 0.05 if tick_s is None else max(0.0, min(0.05, tick_s - time.monotonic()))
            if select.select([fd], [], [], wait_s)[0]:
                self._take(os.read(fd, 1 << 17))
            for frame in self.stack.poll(time.monotonic()):
                if not self._loses():
                    os.write(fd, bytes(_HEADER_SIZE) + frame)

    def _take(self, data: bytes) -> None:
        if self._loses():
            return
        partial = bool(data[0] & _NEEDS_CSUM)
        if not self.stack.detour(data[_HEADER_SIZE:], partial_checksum=partial):
            self.passed_on += 1
            return
        self.partial_checksums += partial

    def _loses(self) -> bool:
        lost = self._loss is not None and self._loss.random() < 0.1
        self.lost += lost
        return lost


@contextmanager
def world(mmds: Mmds, *, loss: random.Random | None = None) -> Iterator[World]:
    """A guest's kernel whose default route is a tap that the service listens on."""
    with namespace() as name, ExitStack() as undo:
        opened = netns.run_in(name, lambda: undo.enter_context(tun.attached(TAP)))
        made = World(name, NetworkStack(mmds), loss)
        stopped = threading.Event()
        thread = threading.Thread(target=made.carry, args=(opened, stopped))
        try:
            fcntl.ioctl(opened, _TUNSETOFFLOAD, _CSUM_AND_TSO4)
            for line in (f"link set {TAP} up", f"addr add 172.16.0.2/24 dev {TAP}", f"route add default dev {TAP}"):
                made.run("ip", *line.split())
            thread.start()
            yield made
        finally:
            stopped.set()
            if thread.ident is not None:
                thread.join()
