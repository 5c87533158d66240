"""Images built for real: what is in them, and what is left when a build is cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.host.process import ProcessRef, descendants
from firkin.host.wait import wait_until

pytestmark = pytest.mark.live

FIRKIN = [sys.executable, "-c", "from firkin.cli import main; main()"]
needs_mmdebstrap = pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")


def firkin(home: Path, *argv: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    return subprocess.run([*FIRKIN, *argv], env=environ, capture_output=True, text=True, timeout=timeout_s)


def blobs(home: Path) -> list[Path]:
    return list((home / "blobs/sha256").glob("*"))


def modes(image: Path) -> dict[str, str]:
    """Path → mode and owner, as unsquashfs lists them."""
    listing = subprocess.run(["unsquashfs", "-lln", image], capture_output=True, text=True, check=True, timeout=30)
    rows = [line.split(maxsplit=5) for line in listing.stdout.splitlines() if "squashfs-root" in line]
    return {row[5].split(" -> ")[0].removeprefix("squashfs-root").lstrip("/"): f"{row[0]} {row[1]}" for row in rows}


def read(image: Path, path: str) -> str:
    return subprocess.run(["unsquashfs", "-cat", image, path], capture_output=True, text=True, check=True).stdout


def test_busybox_has_its_applets_and_mount_points(tmp_path: Path) -> None:
    assert firkin(tmp_path, "image", "build", "busybox").returncode == 0
    [blob] = blobs(tmp_path)
    found = modes(blob)
    assert found[""] == "drwxr-xr-x 0/0"
    assert found["tmp"] == "drwxrwxrwt 0/0"
    assert found["bin/busybox"] == "-rwxr-xr-x 0/0"
    assert {"proc", "sys", "dev", "run", "root", "bin/sh", "bin/mount", "etc/passwd"} <= found.keys()
    assert list((tmp_path / "work").iterdir()) == []


def test_busybox_comes_out_the_same_twice(tmp_path: Path) -> None:
    for home in ("one", "two"):
        assert firkin(tmp_path / home, "image", "build", "busybox").returncode == 0
    assert [blob.name for blob in blobs(tmp_path / "one")] == [blob.name for blob in blobs(tmp_path / "two")]


def test_the_verbs_agree_with_each_other(tmp_path: Path) -> None:
    firkin(tmp_path, "image", "build", "busybox")
    [row] = json.loads(firkin(tmp_path, "image", "ls", "--json").stdout)
    shown = json.loads(firkin(tmp_path, "image", "inspect", "busybox").stdout)
    assert shown["digest"] == row["digest"]
    assert Path(shown["file"]).stat().st_size == row["size_bytes"]
    assert firkin(tmp_path, "image", "rm", "busybox").stdout == "busybox:latest\n"
    assert blobs(tmp_path) == []
    gone = firkin(tmp_path, "image", "rm", "busybox")
    assert gone.returncode == 2
    assert "can be built: debian, python, python3.13, busybox" in gone.stderr


@pytest.mark.parametrize(("recipe", "fill_kib"), [("busybox", 2800), pytest.param("debian", 0, marks=needs_mmdebstrap)])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, recipe: str, fill_kib: int) -> None:
    script = (
        'mount -t tmpfs -o size=4m none "$0" && head -c "$1"K /dev/zero > "$0/ballast" && shift && "$@"; '
        'code=$?; ls "$0/work" "$0/blobs/sha256" 2>/dev/null | grep -v :; exit $code'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, tmp_path, str(fill_kib), *FIRKIN, "image", "build", recipe],
        env=os.environ | {"FIRKIN_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 125, done.stderr
    assert "disk full" in done.stderr
    assert "FIRKIN_HOME" in done.stderr
    assert done.stdout.strip() == ""


@needs_mmdebstrap
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_cut_short_leaves_no_process_and_no_blob(tmp_path: Path, number: signal.Signals) -> None:
    environ = os.environ | {"FIRKIN_HOME": str(tmp_path)}
    command = [*FIRKIN, "image", "build", "debian"]
    build = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family: list[ProcessRef] = []

    def deep_in_work() -> bool:
        ref = ProcessRef.of(build.pid)
        family[:] = descendants(ref) if ref else []
        return len(family) >= 5

    try:
        assert wait_until(deep_in_work, timeout_s=30)
        build.send_signal(number)
        build.wait(15)
    finally:
        build.kill()
        build.wait()
    assert wait_until(lambda: not any(ref.alive() for ref in family), timeout_s=10)
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert blobs(tmp_path) == []
    assert firkin(tmp_path, "image", "build", "busybox").returncode == 0
    assert list((tmp_path / "work").iterdir()) == []


def test_a_missing_program_comes_with_its_package(tmp_path: Path) -> None:
    code = (
        "import firkin.image.build as b, firkin.host.run as r; r.shutil.which = lambda *a, **k: None; "
        "from firkin.cli import main; main(['image', 'build', 'busybox'])"
    )
    environ = os.environ | {"FIRKIN_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=20)
    assert done.returncode == 125
    assert "sudo apt-get install squashfs-tools" in done.stderr


@needs_mmdebstrap
@pytest.mark.slow
@pytest.mark.timeout(320)  # a minute of work that shares its cores with other tests
def test_debian_is_trimmed_and_has_no_identity(tmp_path: Path) -> None:
    done = firkin(tmp_path, "image", "build", "debian", timeout_s=300)
    assert done.returncode == 0, done.stderr
    [blob] = blobs(tmp_path)
    found = modes(blob)
    assert found[""] == "drwxr-xr-x 0/0"
    assert found["root"].startswith("drwx------")
    assert {"proc", "sys", "dev", "run", "tmp", "usr/sbin/sshd", "usr/bin/ping", "usr/bin/apt-get"} <= found.keys()
    assert not [
        path for path in found if path.startswith(("etc/ssh/ssh_host", "usr/share/man/man", "var/lib/apt/lists/deb"))
    ]
    assert read(blob, "etc/machine-id") == ""
    assert read(blob, "etc/shadow").startswith("root:$6$firkin$")
