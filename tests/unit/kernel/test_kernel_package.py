"""What APT says about packages, read; and its failures in few words."""

from __future__ import annotations

import pytest

from firkin.errors import ProgramFailed
from firkin.kernel import package
from firkin.kernel.package import Package

STANZAS = """Package: linux-image-cloud-amd64
Version: 6.1.192-2
Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), kmod | module-init-tools
Description: Linux for x86-64 cloud
 Version: not this line

Package: linux-image-cloud-amd64
Version: 6.1.176-1
"""
KERNEL = Package("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2", ())


def test_the_first_stanza_counts() -> None:
    assert package.parse(STANZAS) == Package(
        "linux-image-cloud-amd64", "6.1.192-2", ("linux-image-6.1.0-56-cloud-amd64", "kmod")
    )


@pytest.mark.parametrize("listing", ["", "\n", "Package: only-a-name\n"])
def test_no_stanza_is_no_package(listing: str) -> None:
    assert package.parse(listing) is None


def test_a_package_is_asked_for_by_its_exact_version() -> None:
    assert KERNEL.exact == "linux-image-6.1.0-56-cloud-amd64=6.1.192-2"


@pytest.mark.parametrize(
    ("said", "expected", "hint"),
    [
        ("Err:1 ... Could not resolve 'deb.debian.org'", "the mirror cannot be reached", "check the network"),
        ("E: Failed to fetch http://...  404  Not Found", "no longer has 6.1.192-2", "sudo apt-get update"),
        ("E: Version '6.1.192-2' for 'linux' was not found", "no longer has 6.1.192-2", "sudo apt-get update"),
    ],
)
def test_a_known_cause_is_named_with_what_to_do(said: str, expected: str, hint: str) -> None:
    error = package.explain(KERNEL, ProgramFailed(("apt-get", "download"), 100, said))
    assert expected in str(error)
    assert hint in error.hint


def test_an_unknown_cause_is_passed_on_word_for_word() -> None:
    failed = ProgramFailed(("apt-get", "download"), 100, "E: Something new")
    assert package.explain(KERNEL, failed) is failed
