"""Debian packages without installing them: APT finds, fetches and verifies, dpkg unpacks. Needs no privileges."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from firkin.errors import HostError, ProgramFailed
from firkin.host.program import run_bound
from firkin.host.run import run
from firkin.progress import step

NETWORK_SIGNS = (
    "Could not resolve",
    "Could not connect",
    "Connection failed",
    "Temporary failure",
    "Unable to connect",
)
STALE_SIGNS = ("404 ", "Hash Sum mismatch", "Unable to find a source", "was not found")


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package, as the package lists have it."""

    name: str
    version: str
    depends: tuple[str, ...]  # first alternatives, names only

    @property
    def exact(self) -> str:
        """How apt-get is asked for just this version."""
        return f"{self.name}={self.version}"


def parse(listing: str) -> Package | None:
    """The first stanza of `apt-cache show`; None where there is none."""
    lines = listing.strip().partition("\n\n")[0].splitlines()
    fields = {key: value.strip() for key, _, value in (line.partition(":") for line in lines if line[:1].strip())}
    if not {"Package", "Version"} <= fields.keys():
        return None
    depends = (clause.split() for clause in fields.get("Depends", "").split(","))
    return Package(fields["Package"], fields["Version"], tuple(words[0] for words in depends if words))


def candidate(name: str) -> Package:
    """The version of a package that APT would install.

    Raises:
        ProgramMissing: the host has no APT.
        HostError: the package lists do not have it; most often there are none yet.
    """
    found = parse(run("apt-cache", "show", "--no-all-versions", name, timeout_s=60, check=False).stdout)
    if found is None:
        raise HostError(f"package {name}: not in APT's lists", hint="sudo apt-get update")
    return found


def newest(metapackage: str, prefix: str) -> Package:
    """The package whose name starts with `prefix` that a metapackage stands for at present.

    Raises:
        ProgramMissing, HostError: as `candidate`, or it stands for no such package.
    """
    for name in candidate(metapackage).depends:
        if name.startswith(prefix):
            return candidate(name)
    raise HostError(f"package {metapackage}: stands for no {prefix}*", hint="sudo apt-get update")


def fetch(package: Package, folder: Path) -> Path:
    """Download a package into `folder`; APT verifies its checksum against the signed lists. Answers the .deb file.

    Raises:
        HostError: the mirror could not be read, or has other versions than the lists say.
        NoSpace: the disk filled up.
    """
    # As root APT would fetch as a user of its own, who may not write into our private folder.
    argv = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package.exact)
    with step(f"Downloading {package.name} {package.version}"):
        try:
            run_bound(argv, cwd=folder, env=os.environ | {"LC_ALL": "C"})
        except ProgramFailed as error:
            raise explain(package, error) from error
    return next(folder.glob(f"{package.name}_*.deb"))


def explain(package: Package, error: ProgramFailed) -> HostError:
    """A failed download in few words, where the cause is one that we know."""
    if any(sign in error.output for sign in NETWORK_SIGNS):
        return HostError(
            f"package {package.name}: the mirror cannot be reached", hint="check the network; apt-get update"
        )
    if any(sign in error.output for sign in STALE_SIGNS):
        return HostError(
            f"package {package.name}: the mirror no longer has {package.version}", hint="sudo apt-get update"
        )
    return error


def unpack(deb: Path, folder: Path) -> None:
    """Lay a package's files below `folder`; none of its scripts runs.

    Raises:
        ProgramFailed: the file is damaged.
        NoSpace: the disk filled up.
    """
    with step(f"Unpacking {deb.name.partition('_')[0]}"):
        run_bound(("dpkg-deb", "--extract", str(deb), str(folder)))
