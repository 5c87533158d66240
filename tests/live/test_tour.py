"""The tour is the acceptance test: it proves everything, tells it as data, and leaves the host as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.live, pytest.mark.slow]


def start_tour(home: Path) -> subprocess.Popen[str]:
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "firkin"), "tour", "--json"],
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def host_view(home: Path) -> tuple[list[str], list[str]]:
    """Namespaces, and leftovers below this home."""
    netns = Path("/run/netns")
    tours = sorted(entry.name for entry in netns.glob("firkin-tour-*")) if netns.is_dir() else []
    return tours, sorted(str(path) for path in home.glob("run/machines/*"))


def test_two_tours_at_once_prove_everything_and_leave_nothing(home: Path) -> None:
    tours = [start_tour(home), start_tour(home)]
    for tour in tours:
        out, err = tour.communicate(timeout=110)
        story = json.loads(out)
        assert (tour.returncode, story["ok"]) == (0, True), err
        proved = [stop["title"] for stop in story["stops"] if stop["proof"]]
        assert len(proved) == 6
    assert host_view(home) == ([], [])


@pytest.mark.parametrize("delay_s", [0.3, 1.0, 3.0])
def test_ctrl_c_at_any_moment_leaves_nothing(home: Path, delay_s: float) -> None:
    tour = start_tour(home)
    time.sleep(delay_s)
    tour.send_signal(signal.SIGINT)
    _, err = tour.communicate(timeout=60)
    assert tour.returncode != 0
    assert "Traceback" not in err
    assert host_view(home)[1] == []
