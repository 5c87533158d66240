"""Verbs on kernels: pull, build, ls, rm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from firkin.cli.output import ago, print_json, print_table, show_progress
from firkin.kernel import shelf
from firkin.kernel.provider import SOURCES
from firkin.settings import Settings, load
from firkin.store.blobs import Blobs
from firkin.store.db import Database
from firkin.store.kernels import Kernel, Kernels
from firkin.store.machines import Machines


@dataclass(frozen=True, slots=True)
class _Store:
    """The tables these verbs need; opening machines' whole world would make `kernel ls` slow."""

    settings: Settings
    kernels: Kernels
    blobs: Blobs
    machines: Machines

    def renew(self, name: str) -> Kernel:
        return shelf.renew(name, self.kernels, self.blobs, self.settings.paths)


@contextmanager
def _opened() -> Iterator[_Store]:
    settings = load()
    db = Database(settings.paths.database)
    try:
        yield _Store(settings, Kernels(db), Blobs(settings.paths), Machines(db))
    finally:
        db.close()


@click.group()
def kernel() -> None:
    """Kernels that guests boot."""


@kernel.command()
@click.argument("name", metavar="NAME", default="debian", type=click.Choice(["debian"]))
def pull(name: str) -> None:
    """Get the newest kernel from a package: debian."""
    _renew(name)


@kernel.command()
def build() -> None:
    """Compile the kernel that boots fastest, from Debian's source. Quick when nothing changed."""
    _renew("build")


def _renew(name: str) -> None:
    show_progress()
    with _opened() as store:
        made = store.renew(name)
    click.echo(f"{made.name} {made.version} {_mib(made)}")


@kernel.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
def ls(as_json: bool, quiet: bool) -> None:
    """List kernels."""
    with _opened() as store:
        kernels = store.kernels.all()
    if as_json:
        print_json(kernels)
    elif quiet:
        for entry in kernels:
            click.echo(entry.name)
    else:
        titles = ("NAME", "VERSION", "DIGEST", "MODULES", "SIZE", "CREATED")
        print_table(titles, [_row(entry) for entry in kernels])
        _suggest({entry.name for entry in kernels})


def _row(entry: Kernel) -> tuple[object, ...]:
    modules = entry.modules_digest[:12] if entry.modules_digest else "-"
    return entry.name, entry.version, entry.digest[:12], modules, _mib(entry), ago(entry.created_at)


def _mib(entry: Kernel) -> str:
    return f"{entry.size_bytes / 2**20:.1f} MiB"


def _suggest(have: set[str]) -> None:
    for source in SOURCES.values():
        if source.name not in have:
            click.echo(f"not here yet: {source.name} ({source.summary}): {source.command}", err=True)


@kernel.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: tuple[str, ...]) -> None:
    """Remove kernels that no machine uses."""
    with _opened() as store:
        for name in names:
            default = store.settings.kernel
            used = [(record.name, record.spec.kernel or default) for record in store.machines.all()]
            gone = shelf.remove(name, store.kernels, store.blobs, store.settings.paths, used)
            click.echo(gone.name)
