"""The initramfs: archives that the kernel can read, and a config that says each byte."""

from __future__ import annotations

import shutil
import stat
import subprocess
import urllib.parse
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.agent.cpio import CpioEntry, write_cpio
from firkin.agent.initrd import GuestConfig, GuestFile, Interface, build_initrd, render_config
from firkin.errors import HostError, InvalidSpec


def read_cpio(data: bytes) -> dict[str, tuple[list[int], bytes]]:
    """Every name with its header fields and content, through all concatenated archives."""
    entries: dict[str, tuple[list[int], bytes]] = {}
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_end = at + 110 + fields[11]
        name = data[at + 110 : name_end - 1].decode()
        start = name_end + -name_end % 4
        end = start + fields[6]
        at = end + -end % 4
        if name != "TRAILER!!!":
            entries[name] = (fields, data[start:end])
    return entries


def words(config: GuestConfig) -> list[list[bytes]]:
    """The config as the guest reads it."""
    lines = render_config(config).removesuffix(b"\n").split(b"\n")
    return [[urllib.parse.unquote_to_bytes(word) for word in line.split(b" ")] for line in lines]


def test_entries_come_back_with_mode_owner_and_content() -> None:
    archive = write_cpio(
        [
            CpioEntry.file("lib/firkin/a.ko", b"12345", 0o600),
            CpioEntry.symlink("bin", "usr/bin"),
            CpioEntry.char_device("dev/console", 5, 1),
            CpioEntry.folder("dev", 0o700),
        ]
    )
    entries = read_cpio(archive)
    assert list(entries) == ["lib", "lib/firkin", "lib/firkin/a.ko", "bin", "dev", "dev/console"]
    assert entries["lib/firkin/a.ko"][1] == b"12345"
    assert entries["lib/firkin/a.ko"][0][1] == stat.S_IFREG | 0o600
    assert entries["bin"][1] == b"usr/bin"
    assert entries["dev/console"][0][9:11] == [5, 1]
    assert len(archive) % 4 == 0


@pytest.mark.parametrize("path", ["/etc", "a//b", "../x", "a/."])
def test_paths_that_could_leave_the_archive_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        write_cpio([CpioEntry.file(path, b"")])


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_itself_can_list_it() -> None:
    archive = write_cpio([CpioEntry.folder("a"), CpioEntry.file("a/b", b"x" * 1001)])
    done = subprocess.run(["cpio", "-t"], input=archive, capture_output=True, check=True)
    assert done.stdout == b"a\na/b\n"


def test_the_initrd_holds_base_modules_and_config(tmp_path: Path) -> None:
    program = tmp_path / "firkin-init"
    program.write_bytes(b"\x7fELF")
    modules = write_cpio([CpioEntry.file("lib/firkin/modules.load", b"")])
    entries = read_cpio(build_initrd(GuestConfig(), modules, program=program))
    assert entries["init"][1] == b"\x7fELF"
    assert entries["init"][0][1] == stat.S_IFREG | 0o755
    assert stat.S_ISCHR(entries["dev/console"][0][1])
    assert "lib/firkin/modules.load" in entries
    assert entries["firkin.conf"][0][1] == stat.S_IFREG | 0o600
    assert {"image", "layer", "newroot"} <= set(entries)


def test_a_missing_guest_program_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        build_initrd(GuestConfig(), program=tmp_path / "nothing")
    assert caught.value.hint == "make -C guest"


def test_each_part_of_a_machine_has_its_statement() -> None:
    config = GuestConfig(
        hostname="web",
        layer="/dev/vdb",
        interfaces=(Interface("06:00:00:00:00:01", IPv4Interface("10.0.0.2/24"), IPv4Address("10.0.0.1")),),
        dns=(IPv4Address("10.0.0.1"),),
        files=(GuestFile("/a b", b"\0%\n", 0o600, 1, 2),),
        entrypoint=("sh", "-c", ""),
        env=("A= b",),
        workdir="/srv",
        user="anna",
        seed=b"\0\xff",
    )
    assert words(config) == [
        [b"firkin", b"1"],
        [b"hostname", b"web"],
        [b"root", b"/dev/vda", b"squashfs"],
        [b"layer", b"/dev/vdb", b"ext4"],
        [b"interface", b"06:00:00:00:00:01", b"10.0.0.2/24", b"10.0.0.1"],
        [b"file", b"644", b"0", b"0", b"/etc/hostname", b"web\n"],
        [b"file", b"644", b"0", b"0", b"/etc/hosts",
         b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.0.0.2 web\n"],
        [b"file", b"644", b"0", b"0", b"/etc/resolv.conf", b"nameserver 10.0.0.1\n"],
        [b"file", b"600", b"1", b"2", b"/a b", b"\0%\n"],
        [b"workdir", b"/srv"],
        [b"user", b"anna"],
        [b"arg", b"sh"], [b"arg", b"-c"], [b"arg", b""],
        [b"env", b"A= b"],
        [b"seed", b"\0\xff"],
    ]  # fmt: skip


@given(st.binary(max_size=200))
def test_any_bytes_of_a_file_are_one_word_of_plain_ascii(data: bytes) -> None:
    config = GuestConfig(files=(GuestFile("/f", data),))
    assert words(config)[-1][-1] == data
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in render_config(config))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (GuestConfig(env=("A=\0",)), "NUL"),
        (GuestConfig(hostname=""), "host name"),
        (GuestConfig(hostname="x" * 65), "host name"),
        (GuestConfig(entrypoint=("x",) * 257), "arguments"),
        (GuestConfig(seed=bytes(513)), "seed"),
    ],
)
def test_what_the_guest_could_not_take_is_refused_here(config: GuestConfig, why: str) -> None:
    with pytest.raises(InvalidSpec, match=why):
        render_config(config)
