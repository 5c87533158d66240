"""Kernels by name: found in the store, provided on first use, removed when nobody needs them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from firkin.errors import NotFound, UsageError
from firkin.host.lock import locked
from firkin.kernel.provider import SOURCES, Provider
from firkin.paths import Paths
from firkin.progress import step
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel, Kernels


def ensure(name: str, kernels: Kernels, blobs: Blobs, paths: Paths, provider: Provider | None = None) -> Kernel:
    """The kernel of that name, provided on first use; of several callers at once, one does the work.

    Raises:
        NotFound: it neither exists nor can be made.
        HostError: making it failed.
    """
    if kernel := _whole(kernels.get(name), blobs):
        return kernel
    if name not in SOURCES:
        raise NotFound("kernel", name, hint=_known(kernels.all()))
    with locked(lock_path(paths, name)):
        # Whoever held the lock before us may have made it.
        return _whole(kernels.get(name), blobs) or _provide(name, None, kernels, blobs, paths, provider)


def renew(name: str, kernels: Kernels, blobs: Blobs, paths: Paths, provider: Provider | None = None) -> Kernel:
    """The newest kernel of that name; the one in the store where it is the newest.

    Raises:
        NotFound: it cannot be made here.
        HostError: making it failed; the former one stays.
    """
    if name not in SOURCES:
        raise NotFound("kernel", name, hint=f"can be had: {', '.join(SOURCES)}")
    with locked(lock_path(paths, name)):
        former = _whole(kernels.get(name), blobs)
        kernel = _provide(name, former, kernels, blobs, paths, provider)
        if former is not None:
            drop_blobs(former, kernels, blobs)
    return kernel


def find(name: str, kernels: Kernels) -> Kernel:
    """A kernel that is in the store.

    Raises:
        NotFound: it is not.
    """
    kernel = kernels.get(name)
    if kernel is None:
        raise NotFound("kernel", name, hint=_known(kernels.all()))
    return kernel


def remove(name: str, kernels: Kernels, blobs: Blobs, paths: Paths, used: Iterable[tuple[str, str]]) -> Kernel:
    """Forget a kernel, and those of its blobs that no other kernel shares. `used`: machine name and kernel name.

    Raises:
        NotFound: there is no such kernel.
        UsageError: a machine uses it.
    """
    kernel = find(name, kernels)
    with locked(lock_path(paths, name)):
        users = [machine for machine, wanted in used if wanted == name]
        if users:
            raise UsageError(
                f"kernel {name!r}: in use by {', '.join(users)}", hint=f"firkin rm --force {' '.join(users)}"
            )
        kernels.remove(name)
        drop_blobs(kernel, kernels, blobs)
    return kernel


def drop_blobs(former: Kernel, kernels: Kernels, blobs: Blobs) -> None:
    """Remove a kernel's files, except those that a kernel in the store still names."""
    for digest in _digests(former) - {digest for kernel in kernels.all() for digest in _digests(kernel)}:
        blobs.path(digest).unlink(missing_ok=True)


def lock_path(paths: Paths, name: str) -> Path:
    """Held while the kernel is made or removed."""
    return paths.locks / f"kernel-{name}"


def _provide(
    name: str, former: Kernel | None, kernels: Kernels, blobs: Blobs, paths: Paths, provider: Provider | None
) -> Kernel:
    blobs.sweep()
    maker = provider or cast("Provider", importlib.import_module(SOURCES[name].module))
    with step(f"Providing kernel {name}"):
        kernel = maker.provide(former, blobs, paths.home / "cache")
    kernels.put(kernel)
    return kernel


def _digests(kernel: Kernel) -> set[str]:
    return {kernel.digest} | ({kernel.modules_digest} if kernel.modules_digest else set())


def _whole(kernel: Kernel | None, blobs: Blobs) -> Kernel | None:
    """The kernel if none of its files got lost."""
    return kernel if kernel and all(blobs.path(digest).exists() for digest in _digests(kernel)) else None


def _known(existing: Iterable[Kernel]) -> str:
    here = ", ".join(kernel.name for kernel in existing) or "none"
    return f"in the store: {here}; can be had: {', '.join(SOURCES)}"
