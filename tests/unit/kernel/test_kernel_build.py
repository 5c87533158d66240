"""Our configuration: what it asks for, what the kernel's tool lost of it, and an environment that does not leak in."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.errors import NoSpace
from firkin.kernel import build, config

RESULT = """#
# Automatically generated file; DO NOT EDIT.
CONFIG_SMP=y
CONFIG_NR_CPUS=32
# CONFIG_PCI is not set
CONFIG_VT=y
CONFIG_LOCALVERSION="-firkin"
"""


def test_options_that_survived_are_not_named() -> None:
    wanted = 'CONFIG_SMP=y\nCONFIG_NR_CPUS=32\nCONFIG_PCI=n\nCONFIG_ACPI=n\nCONFIG_LOCALVERSION="-firkin"\n'
    assert config.lost(wanted, RESULT) == []


def test_options_that_did_not_survive_are_named() -> None:
    wanted = "CONFIG_SMP=y\nCONFIG_NR_CPUS=64\nCONFIG_VT=n\nCONFIG_EROFS_FS=y\n"
    assert config.lost(wanted, RESULT) == ["CONFIG_EROFS_FS=y", "CONFIG_NR_CPUS=64", "CONFIG_VT=n"]


def test_comments_and_unset_options_are_no_assignments() -> None:
    assert config.parse("# CONFIG_PCI is not set\n#CONFIG_ACPI=y\nCONFIG_64BIT=y\n") == {"CONFIG_64BIT": "y"}


def test_our_fragment_names_no_option_twice() -> None:
    names = [name for name, _ in config.ASSIGNMENT.findall(build.fragment())]
    assert len(names) == len(set(names))


def test_a_users_options_win_over_ours() -> None:
    laid = build.fragment("CONFIG_ACPI=y\n# CONFIG_SMP is not set\nCONFIG_VIRTIO_PMEM=y\n")
    assert config.parse(laid)["CONFIG_ACPI"] == "y"
    assert config.parse(laid)["CONFIG_SMP"] == "n"
    assert config.lost(laid, laid.replace("CONFIG_VIRTIO_PMEM=y\n", "")) == ["CONFIG_VIRTIO_PMEM=y"]


@pytest.mark.parametrize(
    "option",
    [
        "CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y",
        "CONFIG_VIRTIO_VSOCKETS=y",
        "CONFIG_OVERLAY_FS=y",
        "CONFIG_SQUASHFS_LZ4=y",
        "CONFIG_NF_TABLES=y",
        "CONFIG_CGROUP_BPF=y",
        "CONFIG_MODULES=n",
        "CONFIG_PCI=n",
        "CONFIG_ACPI=n",
    ],
)
def test_our_fragment_holds_what_guests_rely_on(option: str) -> None:
    assert option in build.fragment().splitlines()


def test_a_users_make_flags_stay_out() -> None:
    env = build.environment({"PATH": "/bin", "MAKEFLAGS": "-k", "KCFLAGS": "-O3", "LANG": "de_DE.UTF-8"})
    assert env["PATH"] == "/bin"
    assert env["LC_ALL"] == "C"
    assert not {"MAKEFLAGS", "KCFLAGS", "LANG"} & env.keys()


def test_too_small_a_disk_is_refused_at_once() -> None:
    with pytest.raises(NoSpace, match="100 MiB free, a kernel build takes"):
        build.check_space(Path("/home/firkin/work/kernel-x"), 100)
