"""Metadata on the engine's command line, in its config file and over its socket; no guest is started."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from engine_rig import Api, engine

pytestmark = pytest.mark.live
DATA = {"latest": {"meta-data": {"id": "i-1"}}}


def test_metadata_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps(DATA, indent=2))
    with engine("--api-sock", tmp_path / "s", "--metadata", tmp_path / "data.json") as vmm:
        vmm.expect("Successfully added metadata to mmds from file")
        with closing(Api(tmp_path / "s")) as api:
            assert api.call("GET", "/mmds") == (200, DATA)
            assert api.call("PATCH", "/mmds", {"latest": {"user-data": "x"}}) == (204, None)
            assert api.call("GET", "/mmds") == (200, {"latest": {"meta-data": {"id": "i-1"}, "user-data": "x"}})


@pytest.mark.parametrize(("options", "limit"), [((), 51200), (("--mmds-size-limit", "100"), 100)])
def test_the_store_has_a_limit(tmp_path: Path, options: tuple[str, ...], limit: int) -> None:
    with engine("--api-sock", tmp_path / "s", *options) as vmm:
        vmm.expect("API server started.")
        with closing(Api(tmp_path / "s")) as api:
            assert api.call("PUT", "/mmds", "x" * (limit - 2)) == (204, None)
            assert api.call("PATCH", "/mmds", {"a": "x" * (limit - 20)}) == (204, None)
            status, fault = api.call("PATCH", "/mmds", {"b": "0123456789"})
            assert (status, fault["fault_message"]) == (
                413,
                "MMDS limit exceeded error: The MMDS patch request doesn't fit.",
            )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "Unable to open or read from the mmds content file"),
        ("{", "MMDS error: metadata provided not valid json"),
    ],
)
def test_a_bad_metadata_file_is_a_panic(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "data.json"
    if content is not None:
        path.write_text(content)
    command = [sys.executable, "-I", "-m", "firkin.engine", "--api-sock", str(tmp_path / "s"), "--metadata", str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode == -6
    assert "Firecracker panicked at" in done.stdout + done.stderr
    assert text in done.stdout + done.stderr
