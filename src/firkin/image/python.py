"""Debian's Python and what it needs, without an init: small, and quick to boot on a CPU that is emulated."""

from __future__ import annotations

import shlex
from pathlib import Path

from firkin.image import mmdebstrap, tree
from firkin.image.recipe import Recipe

# Bookworm's usrmerge has done its work by then, and it alone needs all of Perl.
PURGED = ("usrmerge", "perl", "perl-modules-*", "libperl5*", "lib*-perl", "libgdbm*")
FILES = {"/etc/hostname": "python\n", "/etc/fstab": "", "/etc/machine-id": ""}


def customize_script() -> str:
    """Removes what only the installation needed, and compiles the standard library."""
    lines = [
        "set -eu",
        'cd "$1"',
        f"purged=$(chroot . dpkg-query -W -f '${{Package}} ' {shlex.join(PURGED)}) || true",
        '[ -z "$purged" ] || chroot . dpkg --purge $purged',
        *tree.removals(),
        # Debian's build compiles modules so that each import reads and hashes their source too.
        "chroot . python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3*",
        *tree.files(FILES),
    ]
    return "\n".join(lines)


def _tree(suite: str) -> mmdebstrap.Tree:
    packages = ("usr-is-merged", "python3", "ca-certificates", "netbase", "tzdata")
    return mmdebstrap.Tree(
        suite=suite, variant="essential", packages=packages, script=customize_script(), needed_mib=500
    )


# A function's code crosses only between Pythons of the same version, so there is one for each Debian.
TREES = {"python": _tree("bookworm"), "python3.13": _tree("trixie")}


def make(recipe: Recipe, workspace: Path) -> Path:
    """Build the image in `workspace`; answers the squashfs file.

    Raises:
        ProgramMissing, HostError: the host cannot build Debian, or the mirrors could not be read.
    """
    return mmdebstrap.make(TREES[recipe.name], recipe, workspace)
