"""Provider `debian`: the kernel of Debian's cloud images, out of its package, with the few modules a guest needs."""

from __future__ import annotations

from pathlib import Path

from firkin.errors import HostError
from firkin.host import apt
from firkin.kernel import extract, modules
from firkin.kernel.provider import space_needed
from firkin.progress import step
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel

METAPACKAGE = "linux-image-cloud-amd64"
PREFIX = "linux-image-"
SPACE_MIB = 260  # the package, what it unpacks to, and the expanded kernel


def provide(former: Kernel | None, blobs: Blobs, cache: Path) -> Kernel:  # noqa: ARG001 - Provider's signature
    """The newest cloud kernel that the host's APT knows.

    Raises:
        ProgramMissing, HostError, NoSpace: APT has no lists, the mirror cannot be read, or the disk is full.
    """
    with step("Looking up Debian's kernel"):
        package = apt.newest_behind(METAPACKAGE, PREFIX)
    release = package.name.removeprefix(PREFIX)
    if former is not None and former.version == release:
        return former  # each upload to Debian has a release of its own
    with blobs.workspace("kernel") as workspace:
        space_needed(workspace, SPACE_MIB)
        with step(f"Fetching {package.name} {package.version}"):
            deb = apt.download(package, workspace)
        with step(f"Unpacking kernel {release}"):
            apt.unpack(deb, workspace / "package")
            return adopt(release, workspace / "package", blobs)


def adopt(release: str, package: Path, blobs: Blobs) -> Kernel:
    """Take kernel and modules out of an unpacked package into the store.

    Raises:
        HostError: the package does not hold what it should.
    """
    image = package / "boot" / f"vmlinuz-{release}"
    if not image.exists():
        raise HostError(f"Debian's package for {release}: holds no {image.name}")
    kernel, archive = package / "vmlinux", package / "modules.cpio"
    kernel.write_bytes(extract.vmlinux(image.read_bytes()))
    archive.write_bytes(modules.write_archive(modules.select(modules_folder(package, release))))
    size_bytes = kernel.stat().st_size
    return Kernel(
        name="debian",
        provider="debian",
        version=release,
        digest=blobs.adopt(kernel),
        modules_digest=blobs.adopt(archive),
        size_bytes=size_bytes,
    )


def modules_folder(package: Path, release: str) -> Path:
    """Where the package has its modules; newer Debian has no /lib of its own.

    Raises:
        HostError: it has none.
    """
    for root in ("lib/modules", "usr/lib/modules"):
        if (package / root / release).is_dir():
            return package / root / release
    raise HostError(f"Debian's package for {release}: holds no modules")
