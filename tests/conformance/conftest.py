"""The same suite for every VMM that speaks Firecracker's API: FIRKIN_CONFORMANCE_BINARY names another one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.box import IS_FIRECRACKER, Box, box

QUIET = "console=ttyS0 reboot=k panic=0 quiet"


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A VMM before its start. Tests that share it may only make calls that fail or change nothing."""
    with box(tmp_path_factory.mktemp("fresh")) as opened:
        yield opened


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Box]:
    """A VMM before its start, for one test alone."""
    with box(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def kernel() -> str:
    """A guest kernel as Firecracker takes it: an uncompressed vmlinux."""
    if (path := os.environ.get("FIRKIN_TEST_KERNEL")) is not None:
        return path
    if not (home := os.environ.get("FIRKIN_TEST_HOME")):
        pytest.skip("neither FIRKIN_TEST_KERNEL nor FIRKIN_TEST_HOME is set")
    from firkin.manager.context import Context
    from firkin.settings import load

    context = Context(load({"FIRKIN_HOME": home}))
    try:
        found = context.kernels.get("build")
        return str(context.blobs.path(found.digest)) if found else pytest.skip("no kernel `build` in FIRKIN_TEST_HOME")
    finally:
        context.close()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, kernel: str) -> Iterator[Box]:
    """A VMM whose guest runs: a kernel without a root, which says so and waits for ever."""
    folder = tmp_path_factory.mktemp("running")
    (folder / "disk").write_bytes(bytes(1 << 20))
    with box(folder) as opened:
        for path, body in {
            "/metrics": {"metrics_path": str(folder / "metrics")},
            "/machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
            "/boot-source": {"kernel_image_path": kernel, "boot_args": QUIET},
            "/drives/data": {"drive_id": "data", "is_root_device": False, "path_on_host": str(folder / "disk")},
            "/balloon": {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1},
            "/entropy": {},
            "/vsock": {"guest_cid": 3, "uds_path": str(folder / "v.sock")},
            "/actions": {"action_type": "InstanceStart"},
        }.items():
            assert (reply := opened.call("PUT", path, body)).status == 204, reply
        yield opened


@pytest.fixture(scope="session")
def differs() -> bool:
    """Whether the documented differences apply: not where the real thing is under test."""
    return not IS_FIRECRACKER
