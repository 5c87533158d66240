"""Provider `debian`: the distribution's cloud kernel, its vmlinux extracted, with the modules a guest needs."""

from __future__ import annotations

from pathlib import Path

from firkin.errors import HostError
from firkin.host import vmlinux
from firkin.kernel import modules, package, symbols
from firkin.progress import step
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel

METAPACKAGE = "linux-image-cloud-amd64"
IMAGE_PREFIX = "linux-image-"


def source() -> str:
    """What `provide` would make the kernel of: package and version, and what it adds."""
    return _describe(package.newest(METAPACKAGE, IMAGE_PREFIX))


def _describe(origin: package.Package) -> str:
    return f"{origin.name} {origin.version}, with {symbols.RANDOM_STATE}"


def provide(name: str, blobs: Blobs) -> Kernel:
    """Fetch the package and adopt kernel and modules.

    Raises:
        HostError: no such package, or not the content we know how to use.
    """
    origin = package.newest(METAPACKAGE, IMAGE_PREFIX)
    with blobs.workspace("kernel") as folder:
        package.unpack(package.fetch(origin, folder), folder / "root")
        boot_image = _only(folder / "root/boot", "vmlinuz-*")
        release = boot_image.name.removeprefix("vmlinuz-")
        kernel, archive = folder / "vmlinux", folder / "modules.cpio"
        with step(f"Extracting vmlinux {release}"):
            kernel.write_bytes(_with_random_state(vmlinux.extract(boot_image.read_bytes())))
            archive.write_bytes(modules.write_archive(modules.select(_modules(folder / "root", release))))
        size_bytes = kernel.stat().st_size
        return Kernel(
            name=name,
            provider="debian",
            version=release,
            source=_describe(origin),
            digest=blobs.adopt(kernel),
            modules_digest=blobs.adopt(archive),
            size_bytes=size_bytes,
        )


def _with_random_state(kernel: bytes) -> bytes:
    """The kernel with the one symbol that the engine wants, where the kernel tells its address."""
    name, size = symbols.RANDOM_STATE, symbols.RANDOM_STATE_SIZE
    address = symbols.find(kernel, name)
    return kernel if address is None else symbols.with_symbol(kernel, name, address, size)


def _modules(root: Path, release: str) -> Path:
    """Where the package has its modules: newer Debian ships no /lib."""
    places = (root / "lib/modules" / release, root / "usr/lib/modules" / release)
    return next((place for place in places if place.is_dir()), places[0])


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise HostError(f"kernel package: {len(found)} files match {pattern}, not one")
    return found[0]
