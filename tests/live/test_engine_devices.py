"""Devices as a guest sees them: drives, balloon, random numbers and the serial port of real guests under TCG."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_rig import BOOT_ARGS, Api, Engine, engine, need_kernel
from shell_guest import Guest, build_initrd, guest, restored, save

from firkin.engine import io_uring
from firkin.host.wait import wait_until

pytestmark = pytest.mark.live

MIB = 1 << 20
TOLERANCE = 0.15


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_kernel()
    return build_initrd(tmp_path_factory.mktemp("shell"))


def image(folder: Path, name: str, size: int) -> str:
    """A file that begins with its name."""
    path = folder / name
    path.write_bytes(name.encode())
    os.truncate(path, size)
    return str(path)


def drive(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"drive_id": name, "path_on_host": path, "is_root_device": False, **more}


def head(inside: Guest, device: str) -> str:
    return inside.shell.run(f"head -c 5 /dev/{device}")


def sectors(inside: Guest, device: str) -> int:
    return int(inside.shell.run(f"cat /sys/block/{device}/size"))


@pytest.mark.parametrize("read_only", [True, False])
def test_another_file_shows_its_data_and_size(tmp_path: Path, initrd: Path, read_only: bool) -> None:
    first, second, third = (
        image(tmp_path, name, size) for name, size in (("first", MIB), ("secnd", 3 * MIB), ("third", 2 * MIB + 700))
    )
    with guest(tmp_path, initrd, {"drives/a": drive("a", first, is_read_only=read_only)}) as inside:
        assert (head(inside, "vda"), sectors(inside, "vda")) == ("first", 2048)
        assert inside.shell.run("cat /sys/block/vda/ro") == str(int(read_only))
        for path, name, size in ((second, "secnd", 6144), (third, "third", 4097), (first, "first", 2048)):
            assert inside.api.call("PATCH", "/drives/a", {"drive_id": "a", "path_on_host": path}) == (204, None)
            assert (head(inside, "vda"), sectors(inside, "vda")) == (name, size)
        assert inside.api.call("GET", "/vm/config")[1]["drives"][0]["path_on_host"] == first
        assert Path(third).stat().st_size == 2 * MIB + 700


@pytest.mark.skipif(not io_uring.is_allowed(), reason="io_uring is not allowed here")
def test_an_async_drive_uses_io_uring(tmp_path: Path, initrd: Path) -> None:
    for kind, rings in (("Async", True), ("Sync", False)):
        with guest(tmp_path, initrd, {"drives/a": drive("a", image(tmp_path, "file_", MIB), io_engine=kind)}) as inside:
            assert head(inside, "vda") == "file_"
            opened = [str(fd.readlink()) for fd in Path(f"/proc/{inside.vmm.qemu()}/fd").iterdir()]
            assert ("anon_inode:[io_uring]" in opened) is rings
        (tmp_path / "api.sock").unlink()


def test_a_read_only_drive_refuses_writes_and_a_writable_one_keeps_them(tmp_path: Path, initrd: Path) -> None:
    fixed, open_ = image(tmp_path, "fixed", MIB), image(tmp_path, "open_", MIB)
    drives = {
        "drives/f": drive("f", fixed, is_read_only=True),
        "drives/o": drive("o", open_, io_engine="Async", cache_type="Writeback"),
    }
    with guest(tmp_path, initrd, drives) as inside:
        write = "echo other | dd of=/dev/{} bs=512 conv=sync,fsync count=1"
        assert "failed" in inside.shell.run(f"{write.format('vda')} || echo failed")
        inside.shell.run(write.format("vdb"))
        assert Path(open_).read_bytes()[:6] == b"other\n"
        assert Path(fixed).read_bytes()[:5] == b"fixed"


def partitioned(folder: Path, init: str, signature: int) -> str:
    """A disk with one ext4 partition that holds busybox and an init."""
    tree, filesystem, disk = folder / "tree", folder / "ext4", folder / "disk"
    for name in ("bin", "dev", "proc", "sys"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tree / "bin/busybox")
    (tree / "init").write_text(init)
    (tree / "init").chmod(0o755)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, filesystem, "8M"], check=True)
    entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 16384)
    table = struct.pack("<440sIH", b"", signature, 0) + entry.ljust(64, b"\0") + b"\x55\xaa"
    disk.write_bytes(table.ljust(MIB, b"\0") + filesystem.read_bytes())
    return str(disk)


def test_a_root_is_found_by_partuuid(tmp_path: Path) -> None:
    init = "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\nexec /bin/busybox sh 0<>/dev/ttyS0 1>&0 2>&0\n"
    path = partitioned(tmp_path, init, 0x0BADCAFE)
    root = {"drive_id": "r", "path_on_host": path, "is_root_device": True, "partuuid": "0badcafe-01"}
    source = {"kernel_image_path": need_kernel(), "boot_args": f"{BOOT_ARGS} init=/init"}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"boot-source": source, "drives": [root]}))
    with engine("--no-api", "--config-file", config) as vmm:
        vmm.expect("built-in shell")
        vmm.ask("busybox mount -t proc proc /proc; busybox cat /proc/cmdline", "root=PARTUUID=0badcafe-01 rw")
        vmm.ask("busybox grep ext4 /proc/mounts", "/dev/root / ext4 rw")


def test_files_change_places_under_load_without_an_error(tmp_path: Path, initrd: Path) -> None:
    paths = [image(tmp_path, name, size * MIB) for name, size in (("first", 8), ("secnd", 12))]
    with guest(tmp_path, initrd, {"drives/a": drive("a", paths[0])}) as inside:
        write = "dd if=/dev/zero of=/dev/vda bs=64k seek=1 count=100 oflag=direct"
        read = "dd if=/dev/vda of=/dev/null bs=64k count=100 iflag=direct"
        inside.shell.run(f"(while {write} && {read}; do true; done; touch /ended) >/dev/null 2>&1 &")
        for round_ in range(1, 21):
            patch = {"drive_id": "a", "path_on_host": paths[round_ % 2]}
            assert inside.api.call("PATCH", "/drives/a", patch) == (204, None)
        assert inside.shell.run("dmesg | grep -c 'I/O error' || true") == "0"
        inside.shell.run("test ! -e /ended")
        assert (head(inside, "vda"), sectors(inside, "vda")) == ("first", 16384)


READ = "dd if=/dev/{} of=/dev/null iflag=direct bs={} count={}"


def test_bandwidth_keeps_to_its_bucket(tmp_path: Path, initrd: Path) -> None:
    limiter = {"bandwidth": {"size": 4 * MIB, "refill_time": 1000}}
    with guest(
        tmp_path, initrd, {"drives/a": drive("a", image(tmp_path, "file_", 64 * MIB), rate_limiter=limiter)}
    ) as inside:
        full = inside.shell.seconds(READ.format("vda", "64k", 64))
        assert full < 0.5, "the bucket starts full"
        assert inside.shell.seconds(READ.format("vda", "64k", 128)) == pytest.approx(2, rel=TOLERANCE)
        assert inside.shell.seconds("dd if=/dev/zero of=/dev/vda oflag=direct bs=64k count=128") == pytest.approx(
            2, rel=TOLERANCE
        )


def test_limits_change_and_what_is_not_given_stays(tmp_path: Path, initrd: Path) -> None:
    limiter = {"ops": {"size": 200, "refill_time": 1000}}
    with guest(
        tmp_path, initrd, {"drives/a": drive("a", image(tmp_path, "file_", 64 * MIB), rate_limiter=limiter)}
    ) as inside:
        inside.shell.run(READ.format("vda", "4k", 200))
        assert inside.shell.seconds(READ.format("vda", "4k", 400)) == pytest.approx(2, rel=TOLERANCE)
        patch = {"drive_id": "a", "rate_limiter": {"bandwidth": {"size": 8 * MIB, "refill_time": 1000}}}
        assert inside.api.call("PATCH", "/drives/a", patch)[0] == 204
        shown = inside.api.call("GET", "/vm/config")[1]["drives"][0]["rate_limiter"]
        assert shown["ops"] == {"size": 200, "one_time_burst": None, "refill_time": 1000}
        assert shown["bandwidth"]["size"] == 8 * MIB
        inside.shell.run(READ.format("vda", "1M", 8))
        assert inside.shell.seconds(READ.format("vda", "1M", 16)) == pytest.approx(2, rel=TOLERANCE)
        off = {"drive_id": "a", "rate_limiter": {kind: {"size": 0, "refill_time": 0} for kind in ("ops", "bandwidth")}}
        assert inside.api.call("PATCH", "/drives/a", off)[0] == 204
        assert inside.shell.seconds(READ.format("vda", "4k", 2000)) < 2


def test_a_one_time_burst_comes_first_and_once(tmp_path: Path, initrd: Path) -> None:
    limiter = {"bandwidth": {"size": 4 * MIB, "refill_time": 1000, "one_time_burst": 16 * MIB}}
    with guest(
        tmp_path, initrd, {"drives/a": drive("a", image(tmp_path, "file_", 64 * MIB), rate_limiter=limiter)}
    ) as inside:
        assert inside.shell.seconds(READ.format("vda", "1M", 16)) < 0.5
        time.sleep(0.5)  # the engine has looked
        assert inside.shell.seconds(READ.format("vda", "1M", 4)) < 0.5
        assert inside.shell.seconds(READ.format("vda", "1M", 8)) == pytest.approx(2, rel=TOLERANCE)
        time.sleep(2)
        assert inside.shell.seconds(READ.format("vda", "1M", 12)) == pytest.approx(2, rel=TOLERANCE)


@contextmanager
def backend(folder: Path, path: str) -> Iterator[str]:
    """A process that serves `path` as a vhost-user drive; its socket."""
    socket = folder / "vhost.sock"
    export = f"type=vhost-user-blk,id=e,addr.type=unix,addr.path={socket},node-name=file,writable=on"
    command = ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=file,filename={path}", "--export", export]
    process = subprocess.Popen(command)
    try:
        assert wait_until(socket.exists, timeout_s=10)
        yield str(socket)
    finally:
        process.kill()
        process.wait(10)


def test_a_drive_served_by_another_process(tmp_path: Path, initrd: Path) -> None:
    path = image(tmp_path, "vhost", 2 * MIB)
    with backend(tmp_path, path) as socket:
        body = {"drive_id": "v", "is_root_device": False, "socket": socket}
        with guest(tmp_path, initrd, {"drives/v": body}) as inside:
            assert (head(inside, "vda"), sectors(inside, "vda")) == ("vhost", 4096)
            inside.shell.run("echo other | dd of=/dev/vda bs=512 conv=sync,fsync count=1")
            assert Path(path).read_bytes()[:6] == b"other\n"
            refused = inside.api.fault("PATCH", "/drives/v", {"drive_id": "v", "path_on_host": path})
            assert "Block: Running method expected different backend." in refused
            assert inside.api.call("PATCH", "/drives/v", {"drive_id": "v"}) == (204, None)
            for state in ("Paused", "Resumed"):
                assert inside.api.call("PATCH", "/vm", {"state": state})[0] == 204
            assert head(inside, "vda") == "other"


def memory_mib(inside: Guest, what: str = "MemFree") -> int:
    return int(inside.shell.run(f"grep {what}: /proc/meminfo").split()[1]) // 1024


def test_the_balloon_takes_memory_and_gives_it_back(tmp_path: Path, initrd: Path) -> None:
    config = {"amount_mib": 20, "deflate_on_oom": True, "stats_polling_interval_s": 1}
    with guest(tmp_path, initrd, {"balloon": config}) as inside:

        def actual_mib() -> int:
            return int(inside.api.call("GET", "/balloon/statistics")[1]["actual_mib"])

        assert wait_until(lambda: actual_mib() == 20, timeout_s=20)
        before = memory_mib(inside)
        assert inside.api.call("PATCH", "/balloon", {"amount_mib": 50}) == (204, None)
        assert wait_until(lambda: actual_mib() == 50, timeout_s=20)
        assert before - memory_mib(inside) == pytest.approx(30, abs=4)
        assert inside.api.call("GET", "/balloon")[1]["amount_mib"] == 50
        assert inside.api.call("PATCH", "/balloon", {"amount_mib": 0}) == (204, None)
        assert wait_until(lambda: actual_mib() == 0, timeout_s=20)
        assert memory_mib(inside) - before == pytest.approx(20, abs=4)
        too_much = inside.api.fault("PATCH", "/balloon", {"amount_mib": 129})
        assert too_much == "Balloon update error: Balloon: Requested memory should be less than 128MiB"


def test_a_guest_out_of_memory_gets_it_back(tmp_path: Path, initrd: Path) -> None:
    config = {"amount_mib": 70, "deflate_on_oom": True, "stats_polling_interval_s": 1}
    with guest(tmp_path, initrd, {"balloon": config}) as inside:

        def actual_mib() -> int:
            return int(inside.api.call("GET", "/balloon/statistics")[1]["actual_mib"])

        assert wait_until(lambda: actual_mib() == 70, timeout_s=20)
        inside.shell.run(
            "mkdir -p /tmp; mount -t tmpfs -o size=60M none /tmp; dd if=/dev/zero of=/tmp/a bs=1M count=40"
        )
        assert actual_mib() < 70


def test_a_guest_tells_of_its_memory(tmp_path: Path, initrd: Path) -> None:
    config = {"amount_mib": 8, "deflate_on_oom": False, "stats_polling_interval_s": 1}
    with guest(tmp_path, initrd, {"balloon": config}) as inside:

        def statistics() -> dict[str, int]:
            return dict(inside.api.call("GET", "/balloon/statistics")[1])

        assert wait_until(lambda: "total_memory" in statistics(), timeout_s=20)
        told = statistics()
        assert (told["target_pages"], told["target_mib"]) == (2048, 8)
        assert told["total_memory"] // MIB == pytest.approx(memory_mib(inside, "MemTotal"), abs=9)
        assert {"swap_in", "swap_out", "major_faults", "minor_faults", "free_memory", "available_memory"} <= set(told)
        assert inside.api.call("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 2})[0] == 204
        assert inside.api.call("GET", "/balloon")[1]["stats_polling_interval_s"] == 2
        refused = inside.api.fault("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 0})
        assert "Statistics cannot be enabled/disabled after activation." in refused


def held_memory(inside: Guest) -> int:
    """Bytes that the host holds for QEMU, of which guest memory is the part that changes."""
    lines = Path(f"/proc/{inside.vmm.qemu()}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))


def test_reported_free_pages_go_back_to_the_host(tmp_path: Path, initrd: Path) -> None:
    config = {"amount_mib": 0, "deflate_on_oom": False, "free_page_reporting": True}
    # Linux reports only what is free beyond 64 MiB.
    machine = {"vcpu_count": 1, "mem_size_mib": 256}
    with guest(tmp_path, initrd, {"machine-config": machine, "balloon": config}) as inside:
        inside.shell.run("mkdir -p /tmp; mount -t tmpfs none /tmp; dd if=/dev/urandom of=/tmp/big bs=1M count=50")
        used = held_memory(inside)
        inside.shell.run("rm /tmp/big")
        assert wait_until(lambda: used - held_memory(inside) > 30 * MIB, timeout_s=30)


# An operation is 64 bytes.
@pytest.mark.parametrize("limit", [{"bandwidth": {"size": 20000}}, {"ops": {"size": 312}}], ids=["bandwidth", "ops"])
def test_random_numbers_keep_to_their_limit(tmp_path: Path, initrd: Path, limit: dict[str, dict[str, int]]) -> None:
    limiter = {kind: {**bucket, "refill_time": 500} for kind, bucket in limit.items()}
    with guest(tmp_path, initrd, {"entropy": {"rate_limiter": limiter}}) as inside:
        assert inside.shell.run("cat /sys/class/misc/hw_random/rng_current") == "virtio_rng.0"
        read = "dd if=/dev/hwrng of=/tmp/random bs=64 count={}"
        inside.shell.run("mkdir -p /tmp; " + read.format(1250))
        assert inside.shell.seconds(read.format(1250)) == pytest.approx(2, rel=TOLERANCE)
        assert int(inside.shell.run('tr -d "\\\\000" </tmp/random | wc -c')) > 79000


@contextmanager
def serial_to_file(folder: Path, initrd: Path, **more: Any) -> Iterator[tuple[Engine, Path]]:
    """A guest whose serial port goes to a file that did not exist."""
    out = folder / "serial"
    with engine("--api-sock", folder / "api.sock") as vmm:
        api = Api(folder / "api.sock")
        source = {"kernel_image_path": need_kernel(), "initrd_path": str(initrd), "boot_args": "console=ttyS0 reboot=t"}
        api.put("/boot-source", **source)
        api.put("/serial", serial_out_path=str(out), **more)
        api.put("/actions", action_type="InstanceStart")
        yield vmm, out
        api.close()


def test_the_serial_port_goes_to_a_file_and_has_no_input(tmp_path: Path, initrd: Path) -> None:
    with serial_to_file(tmp_path, initrd) as (vmm, out):
        assert wait_until(lambda: b"READY" in out.read_bytes(), timeout_s=60)
        assert b"Linux version" in out.read_bytes()
        vmm.type("echo never")
        time.sleep(0.5)
        assert b"READY" not in vmm.output
        assert b"never" not in out.read_bytes()


def test_a_serial_port_beyond_its_limit_loses_what_it_says(tmp_path: Path, initrd: Path) -> None:
    with serial_to_file(tmp_path, initrd, rate_limiter={"size": 2000, "refill_time": 3_600_000}) as (_, out):
        assert wait_until(lambda: out.stat().st_size >= 2000, timeout_s=60)
        time.sleep(2)
        assert 2000 <= out.stat().st_size <= 2010


def test_a_restored_guest_has_its_devices_and_they_can_change_before_it_goes_on(tmp_path: Path, initrd: Path) -> None:
    old, new = image(tmp_path, "first", MIB), image(tmp_path, "secnd", 8 * MIB)
    resources = {
        "drives/a": drive("a", old),
        "balloon": {"amount_mib": 20, "deflate_on_oom": True, "stats_polling_interval_s": 1},
        "entropy": {},
    }
    with guest(tmp_path, initrd, resources) as inside:
        assert wait_until(lambda: inside.api.call("GET", "/balloon/statistics")[1]["actual_mib"] == 20, timeout_s=20)
        save(inside, tmp_path / "snapshot")
    (tmp_path / "snapshot.memory").chmod(0o666)
    memory = (tmp_path / "snapshot.memory").read_bytes()
    with restored(tmp_path, tmp_path / "snapshot") as inside:
        limits = {"bandwidth": {"size": 2 * MIB, "refill_time": 1000}}
        patch = {"drive_id": "a", "path_on_host": new, "rate_limiter": limits}
        assert inside.api.call("PATCH", "/drives/a", patch) == (204, None)
        assert inside.api.call("PATCH", "/vm", {"state": "Resumed"})[0] == 204
        assert (head(inside, "vda"), sectors(inside, "vda")) == ("secnd", 16384)
        inside.shell.run(READ.format("vda", "64k", 32))
        assert inside.shell.seconds(READ.format("vda", "64k", 64)) == pytest.approx(2, rel=TOLERANCE)
        assert inside.api.call("PATCH", "/balloon", {"amount_mib": 40}) == (204, None)
        assert wait_until(lambda: inside.api.call("GET", "/balloon/statistics")[1]["actual_mib"] == 40, timeout_s=20)
        assert inside.shell.run("head -c 64 /dev/hwrng | wc -c") == "64"
    assert (tmp_path / "snapshot.memory").read_bytes() == memory


def test_a_guest_with_a_drive_of_another_process_is_not_saved(tmp_path: Path, initrd: Path) -> None:
    with backend(tmp_path, image(tmp_path, "vhost", 2 * MIB)) as socket:
        body = {"drive_id": "v", "is_root_device": False, "socket": socket}
        with guest(tmp_path, initrd, {"drives/v": body}) as inside:
            assert inside.api.call("PATCH", "/vm", {"state": "Paused"})[0] == 204
            files = {"snapshot_path": str(tmp_path / "s"), "mem_file_path": str(tmp_path / "m")}
            assert inside.api.fault("PUT", "/snapshot/create", files) == (
                "Create snapshot error: Cannot save the microVM state: Operation not allowed: "
                "Devices without snapshot support are present: vhost-user-block(id: v)"
            )
            assert not (tmp_path / "s").exists()
