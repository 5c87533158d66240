"""Recipes → command lines and scripts, without running any."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from firkin.errors import HostError, ProgramFailed, ProgramMissing
from firkin.image import busybox, debian, mmdebstrap, python, tree
from firkin.image.recipe import RECIPES, Squash, split_reference
from firkin.image.sources import fallback


def test_a_reference_without_a_tag_means_latest() -> None:
    assert split_reference("debian") == ("debian", "latest")
    assert split_reference("debian:12") == ("debian", "12")
    assert split_reference("debian:") == ("debian", "latest")


def test_squash_names_compressor_block_and_extras() -> None:
    argv = Squash("lz4", 64, ("-Xhc",)).argv("-", Path("/w/out"), "-tar")
    assert shlex.join(argv) == "mksquashfs - /w/out -noappend -no-progress -quiet -comp lz4 -Xhc -b 64K -tar"


def test_recipes_say_how_their_images_run() -> None:
    assert RECIPES["debian"].config.init == "/sbin/init"
    assert RECIPES["debian"].config.sshd
    assert RECIPES["busybox"].config.init is None
    assert RECIPES["busybox"].config.entrypoint == ("/bin/sh", "-l")
    assert RECIPES["python"].config.init is None


def test_root_builds_in_namespaces_that_die_with_the_build() -> None:
    argv = mmdebstrap.mmdebstrap_argv(debian.TREE, fallback("bookworm"), Path("/w/root.tar"), root=True)
    assert argv[0] == "unshare"
    assert {"--mount", "--pid", "--kill-child"} < set(argv)
    assert "--mode=root" in argv


def test_other_users_build_in_a_user_namespace() -> None:
    argv = mmdebstrap.mmdebstrap_argv(debian.TREE, fallback("bookworm"), Path("/w/root.tar"), root=False)
    assert argv[0] == "mmdebstrap"
    assert "--mode=unshare" in argv


def test_the_build_sees_proxies_and_fixed_times_and_nothing_private() -> None:
    env = mmdebstrap.environment({"PATH": "/x", "http_proxy": "http://p", "SECRET": "s"}, Path("/w"), root=True)
    assert env["http_proxy"] == "http://p"
    assert env["TMPDIR"] == "/w"
    assert env["SOURCE_DATE_EPOCH"].isdigit()
    assert "SECRET" not in env
    assert "TMPDIR" not in mmdebstrap.environment({}, Path("/w"), root=False)


@pytest.mark.parametrize(
    ("output", "words", "hint"),
    [
        ("Could not resolve 'deb.debian.org'", "http://deb.debian.org/debian", "apt-get update"),
        ("W: NO_PUBKEY 123", "signature", "debian-archive-keyring"),
        ("I: fine\nE: something else", "E: something else", "sudo"),
    ],
)
def test_known_causes_are_named(output: str, words: str, hint: str) -> None:
    error = mmdebstrap.explain(ProgramFailed(["mmdebstrap"], 1, output), fallback("bookworm"))
    assert isinstance(error, HostError)
    assert words in str(error)
    assert hint in error.hint


def test_the_customize_script_changes_a_tree_as_planned(tmp_path: Path) -> None:
    for folder in ("etc/ssh", "root", "var/lib/apt/lists/partial", "tmp", "etc/pam.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/shadow").write_text("root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n")
    (tmp_path / "etc/ssh/ssh_host_rsa_key").write_text("secret")
    (tmp_path / "etc/machine-id").write_text("0123")
    (tmp_path / "etc/pam.d/common-session").write_text("session optional pam_systemd.so\n")
    subprocess.run(["sh", "-c", tree.customize_script(), "script", tmp_path], check=True, timeout=10)
    assert (tmp_path / "etc/shadow").read_text().startswith("root:$6$firkin$")
    assert "daemon:*:" in (tmp_path / "etc/shadow").read_text()
    assert not (tmp_path / "etc/ssh/ssh_host_rsa_key").exists()
    assert (tmp_path / "etc/machine-id").read_text() == ""
    assert "HostKey /etc/ssh/ssh_host_ed25519_key" in (tmp_path / "etc/ssh/sshd_config.d/firkin.conf").read_text()
    system = tmp_path / "etc/systemd/system"
    assert str((system / "apt-daily.timer").readlink()) == "/dev/null"
    assert (system / "multi-user.target.wants/firkin-console.service").resolve().read_text() == tree.CONSOLE


def test_the_tree_for_python_sheds_perl_and_compiles_the_library() -> None:
    argv = mmdebstrap.mmdebstrap_argv(python.TREES["python"], fallback("bookworm"), Path("/w/root.tar"), root=False)
    assert "--variant=essential" in argv
    assert "python3" in next(part for part in argv if part.startswith("--include=")).split(",")
    script = python.customize_script()
    subprocess.run(["sh", "-n", "-c", script], check=True, timeout=10)
    assert script.index("dpkg --purge") < script.index("unchecked-hash")


def test_applets_become_links_to_the_one_program() -> None:
    assert busybox.links(["bin/ls", "sbin/ip", "bin/busybox", "bin/ls"]) == {
        "bin/ls": "/bin/busybox",
        "sbin/ip": "/bin/busybox",
    }


def _elf(kind: int) -> bytes:
    header = b"\x7fELF\x02\x01" + bytes(26) + (64).to_bytes(8, "little") + bytes(14)
    header += (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    return header.ljust(64, b"\0") + kind.to_bytes(4, "little") + bytes(52)


def test_a_static_program_names_no_loader() -> None:
    assert busybox.is_static(_elf(1))
    assert not busybox.is_static(_elf(3))
    assert not busybox.is_static(b"#!/bin/sh")
    assert not busybox.is_static(b"")


def test_a_user_without_subordinate_ids_is_told_the_command(tmp_path: Path) -> None:
    empty = tmp_path / "subuid"
    empty.write_text("someone:100000:65536\n")
    with pytest.raises((HostError, ProgramMissing)) as caught:
        mmdebstrap._check_subordinate_ids("firkin-nobody", (empty,))
    assert caught.value.hint
