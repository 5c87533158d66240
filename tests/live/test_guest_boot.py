"""firkin-init boots real kernels in QEMU: mounts, layer, identity, console, and an orderly end whatever happens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from guest_qemu import MAC, Guest, boot_to_end, make_squashfs

from firkin.agent.cpio import CpioEntry, write_cpio
from firkin.agent.initrd import GuestConfig, GuestFile, Interface, base_archive, build_initrd

pytestmark = pytest.mark.live

SHELL = GuestConfig(hostname="box", entrypoint=("/bin/sh",), env=("PS1=ready> ",))


@pytest.fixture(scope="session")
def kernel() -> Path:
    path = Path(os.environ.get("FIRKIN_TEST_KERNEL", "/nonexistent"))
    if not path.exists() or shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs FIRKIN_TEST_KERNEL and qemu-system-x86_64")
    return path


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("mksquashfs") is None or not Path("/bin/busybox").exists():
        pytest.skip("needs mksquashfs and busybox-static")
    return make_squashfs(tmp_path_factory.mktemp("image"))


def script(text: str, config: GuestConfig = SHELL) -> GuestConfig:
    """The config with a script in place of its shell; the machine ends with it."""
    return replace(config, entrypoint=("/bin/sh", "-c", text))


FULL = GuestConfig(
    hostname="box",
    interfaces=(
        Interface(MAC, IPv4Interface("192.0.2.2/24"), IPv4Address("192.0.2.1")),
        Interface(MAC, IPv6Interface("fd00::2/64")),
    ),
    dns=(IPv4Address("192.0.2.1"),),
    files=(
        GuestFile("/root/.ssh/authorized_keys", b"ssh-ed25519 key\n", 0o600),
        GuestFile("/opt/a b/c", bytes(range(256)), 0o640, 1000, 10),
    ),
    env=("SPECIAL=100% a  b",),
    workdir="/home",
    seed=bytes(64),
)

LOOK_AROUND = """
hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; ip -o addr; ip route; cat /proc/mounts
stat -c '%a %u:%g %n' /root/.ssh /root/.ssh/authorized_keys '/opt/a b/c' '/opt/a b'
cat /root/.ssh/authorized_keys; md5sum '/opt/a b/c'; echo "env=$SPECIAL"; pwd; id
echo written > /etc/new && cat /etc/new; exit 7
"""

SEEN = (
    "firkin-init: agent ready after ",
    "\nbox\nbox\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n192.0.2.2 box\nfd00::2 box\n",
    "nameserver 192.0.2.1\n",  # over a symbolic link into /run
    "inet 192.0.2.2/24 scope global eth0",
    "inet6 fd00::2/64 scope global",
    "inet 127.0.0.1/8",
    "default via 192.0.2.1 dev eth0",
    "firkin / overlay rw,",
    "tmpfs /run tmpfs rw,nosuid,nodev",
    "devpts /dev/pts devpts rw,",
    "cgroup2 /sys/fs/cgroup cgroup2",
    "700 0:0 /root/.ssh\n600 0:0 /root/.ssh/authorized_keys\n640 1000:10 /opt/a b/c\n755 1000:10 /opt/a b\n",
    "ssh-ed25519 key\n",
    "e2c865db4162bed963bfaa9ef6ac18f0  /opt/a b/c",
    "env=100% a  b\n/home\nuid=0(root) gid=0(root)",
    "\nwritten\n",
    "firkin-init: entrypoint /bin/sh exited with 7: the machine ends\n",
)


def test_a_machine_is_what_its_config_says(kernel: Path, image: Path, tmp_path: Path) -> None:
    said = boot_to_end(kernel, tmp_path, script(LOOK_AROUND, FULL), [image])
    assert [line for line in SEEN if line not in said] == [], said


def test_the_console_is_a_terminal_with_job_control(kernel: Path, image: Path, tmp_path: Path) -> None:
    with Guest(kernel, build_initrd(SHELL), tmp_path, [image]) as guest:
        guest.read_until(b"ready> ")
        guest.type(b"echo star''ted; sleep 100\n")
        guest.read_until(b"started\r\n")
        guest.type(b"\x03")
        guest.read_until(b"ready> ")
        guest.type(b"echo $?; exit\n")
        said = guest.wait_end()
    assert b"\n130\n" in said
    assert b"entrypoint /bin/sh exited with" in said


def test_the_entrypoint_runs_as_its_user_and_says_what_stops_it(kernel: Path, image: Path, tmp_path: Path) -> None:
    said = boot_to_end(kernel, tmp_path, replace(script("id; echo $HOME; tty; touch /x"), user="anna"), [image])
    assert "uid=1000(anna) gid=1000(anna) groups=10(wheel),1000(anna)\n/home/anna\n" in said
    assert "/x: Permission denied" in said


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (replace(SHELL, entrypoint=("/bin/nothing",)), "entrypoint /bin/nothing: No such file or directory"),
        (replace(SHELL, workdir="/nowhere"), "folder /nowhere: No such file or directory"),
        (replace(SHELL, user="bob"), "user bob: no such user or group in the image"),
        (replace(SHELL, init="/sbin/nothing"), "init /sbin/nothing: No such file or directory"),
        (replace(SHELL, filesystem="ext4"), "mount ext4 /dev/vda: no such file system on that disk"),
        (replace(SHELL, filesystem="zfs"), "mount zfs /dev/vda: this kernel does not know that file system"),
        (replace(SHELL, layer="/dev/vda"), "mount ext4 /dev/vda: "),
    ],
)
def test_what_fails_is_told_in_one_line_and_the_machine_ends(
    kernel: Path, image: Path, tmp_path: Path, config: GuestConfig, line: str
) -> None:
    said = boot_to_end(kernel, tmp_path, config, [image])
    assert f"firkin-init: {line}" in said
    assert "Kernel panic" not in said


@pytest.mark.slow
def test_a_missing_disk_is_named_beside_those_that_are_there(kernel: Path, image: Path, tmp_path: Path) -> None:
    said = boot_to_end(kernel, tmp_path, replace(SHELL, root_device="/dev/vdq"), [image])
    assert re.search(r"firkin-init: disk /dev/vdq: not there after 10 s; block devices found:.* vda", said)


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ([], "configuration /firkin.conf: No such file or directory"),
        ([CpioEntry.file("firkin.conf", b"firkin 1\ncolour blue\n")], "/firkin.conf line 2: unknown key"),
    ],
)
def test_a_missing_config_and_a_wrong_one_are_told(
    kernel: Path, tmp_path: Path, entries: list[CpioEntry], line: str
) -> None:
    with Guest(kernel, base_archive() + write_cpio(entries), tmp_path) as guest:
        assert f"firkin-init: {line}\n" in guest.wait_end().decode()


def test_without_its_interface_a_machine_still_comes_up(kernel: Path, image: Path, tmp_path: Path) -> None:
    config = replace(script("echo up"), interfaces=(Interface("06:00:00:00:00:99", IPv4Interface("192.0.2.2/24")),))
    said = boot_to_end(kernel, tmp_path, config, [image])
    assert "firkin-init: network 06:00:00:00:00:99: no interface with that address after 3 s\n" in said
    assert "\nup\n" in said


@pytest.mark.parametrize(("command", "word"), [("reboot", "reboot"), ("poweroff", "poweroff"), ("halt", "halt")])
def test_busybox_tools_end_the_machine(kernel: Path, image: Path, tmp_path: Path, command: str, word: str) -> None:
    said = boot_to_end(kernel, tmp_path, script(f"trap '' TERM HUP; {command}; while :; do sleep 1; done"), [image])
    assert f"firkin-init: {word} was asked for: the machine ends\n" in said


def test_orphans_are_reaped_and_the_agent_is_spared_by_name(kernel: Path, image: Path, tmp_path: Path) -> None:
    said = boot_to_end(
        kernel,
        tmp_path,
        script(
            "(sleep 0.1 & sleep 0.1 &) ; sleep 0.5; ps -o stat | grep -c Z;"
            "for p in /proc/[0-9]*; do grep -q ^@firkin-agent $p/cmdline && cat $p/oom_score_adj; done;"
            "cat /proc/self/oom_score_adj"
        ),
        [image],
    )
    assert "\n0\n-1000\n0\n" in said


def test_the_image_has_its_own_init_if_it_is_told_so(kernel: Path, image: Path, tmp_path: Path) -> None:
    inittab = b"::sysinit:/bin/echo own init $$\n::once:/bin/sh /go\n::ctrlaltdel:/sbin/reboot\n"
    config = GuestConfig(
        init="/bin/init",
        files=(GuestFile("/etc/inittab", inittab), GuestFile("/go", b"ps -o pid,args; kill -INT 1\n")),
    )
    files = (*config.files, GuestFile("/sbin/reboot", b"#!/bin/sh\nexec /bin/reboot\n", 0o755))
    said = boot_to_end(kernel, tmp_path, replace(config, files=files), [image])
    assert "own init" in said
    assert re.search(r"\n +1 init\n", said), said
    assert "@firkin-agent" in said


def test_a_layer_on_disk_keeps_what_was_written_and_ends_clean(kernel: Path, image: Path, tmp_path: Path) -> None:
    disk = tmp_path / "layer.ext4"
    with disk.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    config = replace(
        script("cat /kept; echo kept $(cat /proc/uptime) > /kept; rm /bin/vi; ls /bin/vi"), layer="/dev/vdb"
    )
    first = boot_to_end(kernel, tmp_path, config, [image], writable=[disk])
    assert "cat: can't open '/kept'" in first
    second = boot_to_end(kernel, tmp_path, config, [image], writable=[disk])
    assert "\nkept " in second
    assert "rm: can't remove '/bin/vi'" in second
    state = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout
    assert "needs_recovery" not in state
    assert re.search(r"Filesystem state: +clean", state)


@pytest.mark.parametrize("filesystem", ["erofs", "ext4"])
def test_images_of_other_kinds_boot_too(kernel: Path, image: Path, tmp_path: Path, filesystem: str) -> None:
    tree, disk = image.parent / "tree", tmp_path / f"root.{filesystem}"
    if filesystem == "erofs":
        subprocess.run(["mkfs.erofs", "--quiet", "--all-root", disk, tree], check=True)
    else:
        subprocess.run(["mkfs.ext4", "-q", "-d", tree, disk, "16M"], check=True)
    said = boot_to_end(
        kernel, tmp_path, replace(script("echo w > /w; cat /w /proc/mounts"), filesystem=filesystem), [disk]
    )
    assert "\nw\n" in said
    assert "firkin / overlay rw" in said


def test_the_initramfs_gives_its_memory_back(kernel: Path, image: Path, tmp_path: Path) -> None:
    weight = write_cpio([CpioEntry.file("weight", os.urandom(24 * 1024 * 1024))])
    free = []
    for extra in (b"", weight):
        initrd = build_initrd(script("awk '/MemFree/ {print \"free\", $2}' /proc/meminfo"), extra)
        with Guest(kernel, initrd, tmp_path, [image]) as guest:
            said = guest.wait_end().decode()
        free.append(int(re.findall(r"free (\d+)", said)[0]))
    assert abs(free[0] - free[1]) < 4096


def test_modules_that_cannot_load_are_told_and_passed_over(kernel: Path, image: Path, tmp_path: Path) -> None:
    modules = write_cpio(
        [
            CpioEntry.file("lib/firkin/modules.load", b"/lib/firkin/a.ko\n/lib/firkin/gone.ko\n"),
            CpioEntry.file("lib/firkin/a.ko", b"not a module"),
        ]
    )
    with Guest(kernel, build_initrd(script("echo up"), modules), tmp_path, [image]) as guest:
        said = guest.wait_end().decode()
    assert "firkin-init: module /lib/firkin/a.ko: " in said
    assert "firkin-init: module /lib/firkin/gone.ko: No such file or directory\n" in said
    assert "\nup\n" in said
