"""What can be built here: a `Recipe` and the plan that follows from it. Pure; `build` carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from firkin.store.images import ImageConfig

# Every file time in an image is this or older, so that the same packages give the same bytes: 2024-01-01 00:00 UTC.
SOURCE_DATE_EPOCH = 1_704_067_200


@dataclass(frozen=True, slots=True)
class Squash:
    """How a tree is packed. docs/images.md has the measurements behind the defaults."""

    compressor: str  # as mksquashfs names it
    block_kib: int
    options: tuple[str, ...] = ()  # the compressor's own

    def argv(self, source: str, target: Path, *extra: str) -> tuple[str, ...]:
        """mksquashfs's command line; `source` is a folder, or `-` for a tar archive on stdin."""
        return (
            "mksquashfs", source, str(target), "-noappend", "-no-progress", "-quiet",
            "-comp", self.compressor, *self.options, "-b", f"{self.block_kib}K", *extra,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image that firkin can make by itself. `builder` names the module that fills its tree."""

    name: str
    summary: str
    config: ImageConfig
    squash: Squash
    builder: str


# Unpacks nearly as fast as no compression on an emulated CPU, at 40% of the size; a slow search pays off at each boot.
LZ4 = Squash("lz4", 128, ("-Xhc",))

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="debian",
                summary="Debian 12 with systemd and an SSH server",
                config=ImageConfig(init="/sbin/init", sshd=True),
                squash=LZ4,
                builder="firkin.image.debian",
            ),
            Recipe(
                name="python",
                summary="Python 3.11 on Debian 12, without an init: what @firkin.function runs in",
                config=ImageConfig(init=None, entrypoint=("/usr/bin/python3",)),
                squash=LZ4,
                builder="firkin.image.python",
            ),
            Recipe(
                name="python3.13",
                summary="Python 3.13 on Debian 13, as `python`",
                config=ImageConfig(init=None, entrypoint=("/usr/bin/python3",)),
                squash=LZ4,
                builder="firkin.image.python",
            ),
            Recipe(
                name="busybox",
                summary="BusyBox alone: small, and built within a second",
                config=ImageConfig(init=None, entrypoint=("/bin/sh", "-l")),
                squash=LZ4,
                builder="firkin.image.busybox",
            ),
        )
    }
)


def split_reference(reference: str) -> tuple[str, str]:
    """`name:tag` → name and tag; without a tag it is `latest`."""
    name, _, tag = reference.partition(":")
    return name, tag or "latest"
