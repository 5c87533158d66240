"""Debian packages through APT's own tools, which verify what they fetch. Needs no privileges and installs nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firkin.errors import HostError, ProgramFailed
from firkin.host.program import run_bound
from firkin.host.run import run

NETWORK_SIGNS = (
    "Could not resolve",
    "Could not connect",
    "Connection failed",
    "Temporary failure",
    "Unable to connect",
)
STALE_SIGNS = ("404 ", "Hash Sum mismatch", "Unable to find a source")


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package, as the package lists have it."""

    name: str
    version: str
    depends: tuple[str, ...]  # names only, alternatives left out

    @property
    def exact(self) -> str:
        """As apt-get wants to be asked for just this version."""
        return f"{self.name}={self.version}"


def parse_stanza(text: str) -> dict[str, str]:
    """The first stanza of `apt-cache show`; continuation lines are not kept."""
    lines = text.strip().partition("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines if not line[:1].isspace())
    return {key: value.strip() for key, _, value in pairs}


def parse_package(stanza: Mapping[str, str]) -> Package:
    """A stanza's fields as a `Package`."""
    depends = (clause.partition("|")[0].split() for clause in stanza.get("Depends", "").split(","))
    return Package(stanza["Package"], stanza["Version"], tuple(words[0] for words in depends if words))


def candidate(name: str) -> Package:
    """The version of a package that APT would install.

    Raises:
        ProgramMissing: the host has no APT.
        HostError: the package lists do not have it; most often there are none yet.
    """
    answer = run("apt-cache", "show", "--no-all-versions", name, timeout_s=60, check=False)
    stanza = parse_stanza(answer.stdout)
    if answer.returncode != 0 or "Version" not in stanza:
        raise HostError(f"{name}: not in APT's package lists", hint="sudo apt-get update")
    return parse_package(stanza)


def newest_behind(metapackage: str, prefix: str) -> Package:
    """The package whose name starts with `prefix` that a metapackage stands for at present.

    Raises:
        ProgramMissing, HostError: as `candidate`, or the metapackage names no such package.
    """
    for name in candidate(metapackage).depends:
        if name.startswith(prefix):
            return candidate(name)
    raise HostError(f"{metapackage}: stands for no {prefix}* package", hint="sudo apt-get update")


def download(package: Package, folder: Path) -> Path:
    """Fetch a package into `folder`; APT checks it against its signed lists. Answers the .deb file.

    Raises:
        HostError: the mirror could not be read, or has a newer version than the lists say.
        NoSpace: the disk filled up.
    """
    # As root APT would fetch as its own user, who cannot write into a private folder.
    sandbox = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()
    try:
        run_bound(("apt-get", "-q", *sandbox, "download", package.exact), cwd=folder, env=os.environ | {"LC_ALL": "C"})
    except ProgramFailed as error:
        raise explain(package, error) from error
    return next(folder.glob(f"{package.name}_*.deb"))


def explain(package: Package, error: ProgramFailed) -> HostError:
    """A failed download in few words, with what to do about it."""
    if any(sign in error.output for sign in NETWORK_SIGNS):
        hint = "check the network, and `apt-get update`"
        return HostError(f"{package.name}: cannot reach the package mirror", hint=hint)
    if any(sign in error.output for sign in STALE_SIGNS):
        return HostError(f"{package.name}: the mirror no longer has {package.version}", hint="sudo apt-get update")
    return error


def unpack(deb: Path, folder: Path) -> None:
    """Put a package's files below `folder`; its scripts do not run.

    Raises:
        ProgramFailed: the file is damaged.
        NoSpace: the disk filled up.
    """
    run_bound(("dpkg-deb", "-x", str(deb), str(folder)))
