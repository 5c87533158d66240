"""Debian with systemd and sshd, trimmed so that it boots fast on a CPU that is emulated."""

from __future__ import annotations

from pathlib import Path

from firkin.image import mmdebstrap, tree
from firkin.image.recipe import Recipe

PACKAGES = (
    "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "openssh-server", "iproute2", "iputils-ping",
    "login", "procps", "netbase",
)  # fmt: skip
TREE = mmdebstrap.Tree(
    suite="bookworm",
    variant="apt",
    packages=PACKAGES,
    script=tree.customize_script(),
    needed_mib=600,
)


def make(recipe: Recipe, workspace: Path) -> Path:
    """Build the image in `workspace`; answers the squashfs file.

    Raises:
        ProgramMissing, HostError: the host cannot build Debian, or the mirrors could not be read.
    """
    return mmdebstrap.make(TREE, recipe, workspace)
