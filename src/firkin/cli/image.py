"""Verbs on images: build, ls, inspect, rm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import click
import msgspec

from firkin.cli.output import ago, print_json, print_table, show_progress
from firkin.image import shelf
from firkin.image.recipe import RECIPES
from firkin.paths import Paths
from firkin.settings import load
from firkin.store.blobs import Blobs
from firkin.store.db import Database
from firkin.store.images import Image, Images
from firkin.store.machines import Machines
from firkin.store.snapshots import Snapshots


@dataclass(frozen=True, slots=True)
class _Store:
    """The tables these verbs need; opening machines' whole world would make `image ls` slow."""

    paths: Paths
    images: Images
    blobs: Blobs
    machines: Machines
    snapshots: Snapshots


@contextmanager
def _opened() -> Iterator[_Store]:
    paths = load().paths
    db = Database(paths.database)
    try:
        yield _Store(paths, Images(db), Blobs(paths), Machines(db), Snapshots(db))
    finally:
        db.close()


@click.group()
def image() -> None:
    """Root filesystems."""


@image.command()
@click.argument("name", metavar="RECIPE")
def build(name: str) -> None:
    """Build an image, or build it anew: debian, python, python3.13, busybox."""
    show_progress()
    with _opened() as store:
        built = shelf.rebuild(name, store.images, store.blobs, store.paths, store.snapshots.image_digests())
    click.echo(f"{built.reference} {built.digest[:12]} {_mib(built)}")


@image.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
def ls(as_json: bool, quiet: bool) -> None:
    """List images."""
    with _opened() as store:
        images = store.images.all()
    if as_json:
        print_json(images)
    elif quiet:
        for entry in images:
            click.echo(entry.reference)
    else:
        titles = ("NAME", "TAG", "DIGEST", "FILESYSTEM", "SIZE", "CREATED")
        print_table(titles, [_row(entry) for entry in images])
        _suggest({entry.name for entry in images})


def _row(entry: Image) -> tuple[object, ...]:
    return entry.name, entry.tag, entry.digest[:12], entry.filesystem, _mib(entry), ago(entry.created_at)


def _mib(entry: Image) -> str:
    return f"{entry.size_bytes / 2**20:.1f} MiB"


def _suggest(have: set[str]) -> None:
    for recipe in RECIPES.values():
        if recipe.name not in have:
            click.echo(f"not built yet: {recipe.name} ({recipe.summary}): firkin image build {recipe.name}", err=True)


@image.command()
@click.argument("reference", metavar="NAME[:TAG]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as always.")
def inspect(reference: str, as_json: bool) -> None:  # noqa: ARG001 - every listing takes --json; this one knows no other form
    """Print all that is known of an image, as JSON."""
    with _opened() as store:
        found = shelf.find(reference, store.images)
        file = store.blobs.path(found.digest)
        print_json(msgspec.to_builtins(found) | {"file": str(file), "present": file.exists()})


@image.command()
@click.argument("references", nargs=-1, required=True, metavar="NAME[:TAG]...")
def rm(references: tuple[str, ...]) -> None:
    """Remove images that no machine uses, and templates of them."""
    from firkin.manager import template_keeping
    from firkin.manager.context import Context

    with _opened() as store:
        for reference in references:
            used = [(record.name, record.spec.image) for record in store.machines.all()]
            gone = shelf.remove(
                reference, store.images, store.blobs, store.paths, used, store.snapshots.image_digests()
            )
            click.echo(gone.reference)
    with closing(Context(load())) as context:
        template_keeping.evict(context)
