"""What a kernel can come from: the names, and what each provider's module offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from firkin.errors import NoSpace
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel


@dataclass(frozen=True, slots=True)
class Source:
    """One kernel that firkin can get by itself; `module` holds its `Provider`."""

    name: str
    summary: str
    command: str
    module: str


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        source.name: source
        for source in (
            Source(
                "debian",
                "Debian's cloud kernel, from its package",
                "firkin kernel pull debian",
                "firkin.kernel.debian",
            ),
            Source(
                "build",
                "the fastest to boot, compiled from Debian's source in some minutes",
                "firkin kernel build",
                "firkin.kernel.build",
            ),
        )
    }
)


class Provider(Protocol):
    """What a provider's module offers."""

    def provide(self, former: Kernel | None, blobs: Blobs, cache: Path) -> Kernel:
        """Get the kernel as it is now; answer `former` when that is the same already.

        `cache` is a folder, perhaps not yet made, for what makes the next time better.
        """
        ...


def space_needed(folder: Path, mib: int) -> None:
    """Refuse work that would fill the disk.

    Raises:
        NoSpace: less than `mib` MiB are free where `folder` is.
    """
    import shutil

    free_mib = shutil.disk_usage(folder).free >> 20
    if free_mib < mib:
        raise NoSpace(
            f"{folder}: {free_mib} MiB free, {mib} MiB needed", hint="free some space, or set FIRKIN_HOME elsewhere"
        )
