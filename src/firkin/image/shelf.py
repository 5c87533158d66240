"""Images by name: found in the store, built on first use, removed when nobody needs them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from firkin.errors import NotFound, UsageError
from firkin.host.lock import locked
from firkin.image.recipe import RECIPES, Recipe, split_reference
from firkin.paths import Paths
from firkin.store.blobs import Blobs
from firkin.store.images import Image, Images

Build = Callable[[Recipe, Images, Blobs], Image]


def build_now(recipe: Recipe, images: Images, blobs: Blobs) -> Image:
    """`build.build`, loaded only where something is built."""
    from firkin.image.build import build

    return build(recipe, images, blobs)


def ensure(reference: str, images: Images, blobs: Blobs, paths: Paths, *, build: Build = build_now) -> Image:
    """The image `name` or `name:tag`, built on first use; of several callers at once, one does the work.

    Raises:
        NotFound: it neither exists nor can be built.
        HostError: building it failed.
    """
    name, tag = split_reference(reference)
    if image := _whole(images.get(name, tag), blobs):
        return image
    if name not in RECIPES or tag != "latest":
        raise NotFound("image", reference, hint=_known(images.all()))
    with locked(lock_path(paths, name)):
        # Whoever held the lock before us may have built it.
        return _whole(images.get(name, tag), blobs) or build(RECIPES[name], images, blobs)


def rebuild(
    name: str, images: Images, blobs: Blobs, paths: Paths, pinned: Collection[str] = (), *, build: Build = build_now
) -> Image:
    """Build the recipe `name` anew, even if the image exists. The former blob stays if its digest is `pinned`.

    Raises:
        NotFound: there is no such recipe.
        HostError: building it failed.
    """
    if name not in RECIPES:
        raise NotFound("recipe", name, hint=f"can be built: {', '.join(RECIPES)}")
    with locked(lock_path(paths, name)):
        former = images.get(name)
        image = build(RECIPES[name], images, blobs)
    if former is not None and former.digest not in (image.digest, *pinned):
        _drop_blob(former.digest, images, blobs)
    return image


def find(reference: str, images: Images) -> Image:
    """An image that is in the store.

    Raises:
        NotFound: it is not.
    """
    image = images.get(*split_reference(reference))
    if image is None:
        raise NotFound("image", reference, hint=_known(images.all()))
    return image


def remove(
    reference: str,
    images: Images,
    blobs: Blobs,
    paths: Paths,
    used: Iterable[tuple[str, str]],
    pinned: Collection[str] = (),
) -> Image:
    """Forget an image, and its blob unless another image shares it or its digest is `pinned`. `used`: machine name and
    image reference.

    Raises:
        NotFound: there is no such image.
        UsageError: a machine uses it.
    """
    image = find(reference, images)
    with locked(lock_path(paths, image.name)):
        users = [machine for machine, wanted in used if split_reference(wanted) == (image.name, image.tag)]
        if users:
            raise UsageError(
                f"image {image.reference!r}: in use by {', '.join(users)}", hint=f"firkin rm --force {' '.join(users)}"
            )
        images.remove(image.name, image.tag)
        if image.digest not in pinned:
            _drop_blob(image.digest, images, blobs)
    return image


def lock_path(paths: Paths, name: str) -> Path:
    """Held while the image is built or removed."""
    return paths.locks / f"image-{name}"


def _whole(image: Image | None, blobs: Blobs) -> Image | None:
    return image if image is not None and blobs.path(image.digest).exists() else None


def _drop_blob(digest: str, images: Images, blobs: Blobs) -> None:
    if not any(other.digest == digest for other in images.all()):
        blobs.path(digest).unlink(missing_ok=True)


def _known(existing: Iterable[Image]) -> str:
    here = ", ".join(image.reference for image in existing) or "none"
    return f"in the store: {here}; can be built: {', '.join(RECIPES)}"
