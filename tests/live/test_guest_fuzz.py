"""The guest's parsers meet a few seconds of fuzzing; script/fuzz does it for as long as one likes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from agent_rig import GUEST

pytestmark = pytest.mark.live


def test_the_fuzzers_find_nothing(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("no clang")
    done = subprocess.run(
        [GUEST.parent / "script/fuzz", "5"], env={**os.environ, "BUILD": str(tmp_path)}, stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE, text=True, errors="replace", timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    assert done.stdout.count("stat::number_of_executed_units") == 3
