"""Debian packages without installing them: apt's own tools find, fetch and verify, dpkg's unpack."""

from __future__ import annotations

import re
from pathlib import Path

from firkin.errors import HostError, ProgramFailed
from firkin.host.program import run_bound
from firkin.host.run import run
from firkin.progress import step


def dependency(package: str, pattern: str) -> str:
    """The package matching `pattern` that a metapackage depends on.

    Raises:
        HostError: apt does not know the metapackage, or it depends on none such.
    """
    listing = run("apt-cache", "depends", "--important", package, check=False).stdout
    found = re.findall(rf"^\s*Depends: ({pattern})$", listing, re.MULTILINE)
    if not found:
        raise HostError(f"package {package}: apt knows no such package here", hint="sudo apt-get update")
    return str(found[0])


def version(package: str) -> str:
    """The version that apt would fetch."""
    listing = run("apt-cache", "show", "--no-all-versions", package, check=False).stdout
    found = re.search(r"^Version: (\S+)$", listing, re.MULTILINE)
    if found is None:
        raise HostError(f"package {package}: apt knows no such package here", hint="sudo apt-get update")
    return found.group(1)


def fetch(package: str, folder: Path) -> Path:
    """Download a package into `folder`; apt verifies its checksum against the signed index.

    Raises:
        HostError: apt could not, with what it said.
    """
    with step(f"Downloading {package}"):
        try:
            # Without its sandbox user, which may not write into our private folder.
            options = ("-q", "-o", "APT::Sandbox::User=root", "-o", f"Dir::Cache::archives={folder}")
            run_bound(
                ["sh", "-c", 'cd "$1" && shift && exec apt-get "$@"', "sh", str(folder), *options, "download", package]
            )
        except ProgramFailed as error:
            raise HostError(f"package {package}: {error}", hint="sudo apt-get update") from error
    return next(folder.glob(f"{package}_*.deb"))


def unpack(package: Path, folder: Path) -> None:
    """Lay the package's files below `folder`."""
    with step(f"Unpacking {package.name}"):
        run_bound(["dpkg-deb", "--extract", str(package), str(folder)])
