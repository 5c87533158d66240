"""Kernels by name: found in the store, provided on first use, removed when nobody needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from firkin.errors import NotFound, UsageError
from firkin.host.lock import locked
from firkin.kernel import build, debian
from firkin.paths import Paths
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel, Kernels

Provider = Callable[[str, Blobs], Kernel]

PROVIDERS: dict[str, Provider] = {"debian": debian.provide, "build": build.provide}
SOURCES: dict[str, Callable[[], str]] = {"debian": debian.source, "build": build.source}


def ensure(name: str, kernels: Kernels, blobs: Blobs, paths: Paths) -> Kernel:
    """The kernel of that name, provided on first use; of several callers at once, one does the work.

    Raises:
        NotFound: it is neither in the store nor can be provided.
        HostError: providing it failed.
    """
    if kernel := _whole(kernels.get(name), blobs):
        return kernel
    return _provide(name, kernels, blobs, paths, lambda kernel: kernel is not None)


def refresh(name: str, kernels: Kernels, blobs: Blobs, paths: Paths) -> Kernel:
    """The kernel made of what the host's packages offer now; at once, if that is what we have.

    Raises:
        NotFound: no provider of that name.
        HostError: providing it failed.
    """

    def is_current(kernel: Kernel | None) -> bool:
        return kernel is not None and kernel.source == SOURCES[name]()

    return _provide(name, kernels, blobs, paths, is_current)


def _provide(
    name: str, kernels: Kernels, blobs: Blobs, paths: Paths, suffices: Callable[[Kernel | None], bool]
) -> Kernel:
    if name not in PROVIDERS:
        known = ", ".join(sorted({*PROVIDERS, *(kernel.name for kernel in kernels.all())}))
        raise NotFound("kernel", name, hint=f"there are: {known}")
    with locked(paths.locks / f"kernel-{name}"):
        former = _whole(kernels.get(name), blobs)
        if former is not None and suffices(former):
            return former
        kernel = PROVIDERS[name](name, blobs)
        kernels.put(kernel)
    if former is not None:
        drop_blobs(former, kernels, blobs)
    return kernel


def remove(name: str, kernels: Kernels, blobs: Blobs, used: Iterable[tuple[str, str]]) -> Kernel:
    """Forget a kernel and its blobs. `used`: machine name and kernel name.

    Raises:
        NotFound: there is no such kernel.
        UsageError: a machine uses it.
    """
    kernel = kernels.get(name)
    if kernel is None:
        raise NotFound("kernel", name)
    users = [machine for machine, wanted in used if wanted == name]
    if users:
        raise UsageError(f"kernel {name!r}: in use by {', '.join(users)}", hint=f"firkin rm --force {' '.join(users)}")
    kernels.remove(name)
    drop_blobs(kernel, kernels, blobs)
    return kernel


def drop_blobs(kernel: Kernel, kernels: Kernels, blobs: Blobs) -> None:
    """Remove a kernel's files unless another kernel shares them."""
    shared = {digest for other in kernels.all() for digest in (other.digest, other.modules_digest)}
    for digest in (kernel.digest, kernel.modules_digest):
        if digest is not None and digest not in shared:
            blobs.path(digest).unlink(missing_ok=True)


def _whole(kernel: Kernel | None, blobs: Blobs) -> Kernel | None:
    """The kernel, if its files are there."""
    if kernel is None or not blobs.path(kernel.digest).exists():
        return None
    return kernel if kernel.modules_digest is None or blobs.path(kernel.modules_digest).exists() else None
