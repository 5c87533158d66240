"""Kernels by name: found in the store, provided on first use, removed when nobody needs them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol, cast

from firkin.errors import NotFound, UsageError
from firkin.host.lock import locked
from firkin.paths import Paths
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel, Kernels

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


class Provider(Protocol):
    """What each provider's module offers."""

    def source(self) -> str:
        """What `provide` would make the kernel of now; the same source makes the same kernel."""
        ...

    def provide(self, name: str, blobs: Blobs) -> Kernel:
        """Make the kernel and put its files into the store."""
        ...


# Name → what `ls` says of a kernel that is not there yet, and how to get it. Modules load only where one is made.
PROVIDERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "debian": ("from Debian's cloud kernel package", "firkin kernel pull debian"),
        "build": ("boots fastest, takes minutes to compile", "firkin kernel build"),
    }
)


def load_provider(name: str) -> Provider:
    """The module that makes the kernel of that name."""
    return cast("Provider", importlib.import_module(f"firkin.kernel.{name}"))


Load = Callable[[str], Provider]


def ensure(name: str, kernels: Kernels, blobs: Blobs, paths: Paths, *, load: Load = load_provider) -> Kernel:
    """The kernel of that name, provided on first use; of several callers at once, one does the work.

    Raises:
        NotFound: it is neither in the store nor can be provided.
        HostError: providing it failed.
    """
    if kernel := _whole(kernels.get(name), blobs):
        return kernel
    if name not in PROVIDERS:
        raise NotFound("kernel", name, hint=_known(kernels))
    return _provide(name, kernels, blobs, paths, load(name), lambda _former, _provider: True)


def refresh(name: str, kernels: Kernels, blobs: Blobs, paths: Paths, provider: Provider) -> Kernel:
    """The kernel that `provider` makes of what the host's packages offer now; at once, if that is what we have.

    Raises:
        HostError: providing it failed; what was there before stays.
    """
    return _provide(name, kernels, blobs, paths, provider, lambda former, maker: former.source == maker.source())


def check_name(name: str, *, ours: bool) -> None:
    """Whether a kernel built here may have this name; `ours`: with our options alone.

    Raises:
        UsageError: it is no name, or means another kernel.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"kernel {name!r}: not a name", hint="use lower-case letters, digits, dots and dashes")
    if name in PROVIDERS and not (ours and name == "build"):
        raise UsageError(f"kernel {name!r}: the name stands for another kernel", hint="--name my-kernel")


def _provide(
    name: str,
    kernels: Kernels,
    blobs: Blobs,
    paths: Paths,
    provider: Provider,
    suffices: Callable[[Kernel, Provider], bool],
) -> Kernel:
    with locked(paths.locks / f"kernel-{name}"):
        # Whoever held the lock before us may have made it.
        former = _whole(kernels.get(name), blobs)
        if former is not None and suffices(former, provider):
            return former
        blobs.sweep()
        kernel = provider.provide(name, blobs)
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
        raise NotFound("kernel", name, hint=_known(kernels))
    users = [machine for machine, wanted in used if wanted == name]
    if users:
        raise UsageError(f"kernel {name!r}: in use by {', '.join(users)}", hint=f"firkin rm --force {' '.join(users)}")
    kernels.remove(name)
    drop_blobs(kernel, kernels, blobs)
    return kernel


def _known(kernels: Kernels) -> str:
    here = ", ".join(kernel.name for kernel in kernels.all()) or "none"
    return f"in the store: {here}; can be had: {', '.join(PROVIDERS)}"


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
