"""The README's console examples work as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.live, pytest.mark.slow]

README = Path(__file__).parents[2] / "README.md"
RELEASE = re.compile(r"Linux \S+")


def examples() -> list[tuple[str, str]]:
    """Commands of the console blocks, each with the output that the README shows for it."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    parts = [part.partition("\n") for block in blocks for part in block.split("$ ") if part.strip()]
    return [(command, shown.strip()) for command, _, shown in parts]


def test_the_examples_do_what_they_show(home: Path) -> None:
    environ = os.environ | {"FIRKIN_HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    found = examples()
    assert len(found) > 8
    for command, shown in found:
        done = subprocess.run(
            command, shell=True, env=environ, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if shown:
            assert RELEASE.sub("Linux", done.stdout.strip()) == RELEASE.sub("Linux", shown), command
