"""What the engine imports while nobody asks for anything."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
from firkin.engine import preload, session
preload.for_load()
before = set(sys.modules)
import firkin.engine.snapshot.load, firkin.engine.vhost, firkin.engine.vsock.backend, firkin.engine.net.backend
print(len(set(sys.modules) - before))
"""


def test_a_load_finds_its_modules() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
