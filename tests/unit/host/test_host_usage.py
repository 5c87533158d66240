"""What a process and its children cost, measured on this one's own children."""

from __future__ import annotations

import subprocess
import sys

from firkin.host.process import ProcessRef
from firkin.host.usage import usage

# A parent that is idle, and a child that takes memory and time and then says so.
CHILD = """
import os, time
held = bytearray(os.urandom(1)) * (32 << 20)
while time.process_time() < 0.3:
    continue
print(1, flush=True)
input()
"""
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_children_count_and_the_dead_cost_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        ref = ProcessRef.of(parent.pid)
        assert ref is not None
        assert parent.stdout.readline() == b"1\n"
        cost = usage(ref)
        parent.communicate(b"\n")
    assert cost.cpu_s > 0.25  # the kernel counts in ticks
    assert 32 << 20 < cost.memory_bytes < 128 << 20
    gone = usage(ref)
    assert (gone.cpu_s, gone.memory_bytes) == (0, 0)
