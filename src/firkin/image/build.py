"""Carry a recipe out: a scratch folder, the recipe's own builder, one blob and one row in the store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from firkin.host.run import find
from firkin.image.recipe import Recipe
from firkin.progress import step
from firkin.store.blobs import Blobs
from firkin.store.images import Image, Images


class Builder(Protocol):
    """What a recipe's module offers."""

    def make(self, recipe: Recipe, workspace: Path) -> Path:
        """Fill `workspace` and answer the finished squashfs file in it."""
        ...


def build(recipe: Recipe, images: Images, blobs: Blobs, builder: Builder | None = None) -> Image:
    """Make the image and remember it as `NAME:latest`; the caller holds the image's lock.

    Whatever goes wrong, neither a blob nor a row appears.

    Raises:
        ProgramMissing, ProgramFailed, NoSpace, HostError: the build failed.
    """
    find("mksquashfs")
    blobs.sweep()
    maker = builder or cast("Builder", importlib.import_module(recipe.builder))
    with step(f"Building image {recipe.name}"), blobs.workspace("image") as workspace:
        file = maker.make(recipe, workspace)
        size_bytes = file.stat().st_size
        image = Image(
            name=recipe.name,
            tag="latest",
            digest=blobs.adopt(file),
            filesystem="squashfs",
            config=recipe.config,
            size_bytes=size_bytes,
        )
    images.put(image)
    return image
