"""Verbs on kernels: pull, build, ls, rm."""

from __future__ import annotations

from typing import TextIO

import click

from firkin.cli.output import ago, print_json, print_table, show_progress
from firkin.kernel import shelf
from firkin.manager.context import Context
from firkin.settings import load
from firkin.store.kernels import Kernel


@click.group()
def kernel() -> None:
    """Linux kernels."""


@kernel.command()
@click.argument("name", default="debian", type=click.Choice(["debian"]))
def pull(name: str) -> None:
    """Fetch a distribution's kernel, or bring it up to date."""
    click.echo(_describe(_refresh(name, shelf.load_provider(name))))


@kernel.command()
@click.option("--name", metavar="NAME", default="build", show_default=True, help="What to call it.")
@click.option(
    "--config",
    type=click.File(),
    metavar="FILE",
    help="Options of your own, laid over ours; needs a --name of its own.",
)
def build(name: str, config: TextIO | None) -> None:
    """Build the kernel that boots fastest (minutes).

    Done at once if nothing changed.
    """
    from firkin.kernel.build import Variant

    overlay = config.read() if config else ""
    shelf.check_name(name, ours=not overlay)
    click.echo(_describe(_refresh(name, Variant(overlay))))


def _refresh(name: str, provider: shelf.Provider) -> Kernel:
    show_progress()
    context = Context(load())
    try:
        return shelf.refresh(name, context.kernels, context.blobs, context.paths, provider)
    finally:
        context.close()


def _describe(found: Kernel) -> str:
    return f"{found.name}: Linux {found.version}, {found.size_bytes / 2**20:.1f} MiB, sha256 {found.digest[:12]}"


@kernel.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
def ls(as_json: bool, quiet: bool) -> None:
    """List kernels."""
    context = Context(load())
    kernels = context.kernels.all()
    context.close()
    if as_json:
        print_json(kernels)
    elif quiet:
        for found in kernels:
            click.echo(found.name)
    else:
        print_table(("NAME", "VERSION", "SHA256", "SIZE", "CREATED"), [_row(found) for found in kernels])
        _suggest({found.name for found in kernels})


def _row(found: Kernel) -> tuple[object, ...]:
    size = f"{found.size_bytes / 2**20:.1f} MiB"
    return found.name, found.version, found.digest[:12], size, ago(found.created_at)


def _suggest(have: set[str]) -> None:
    for name, (summary, command) in shelf.PROVIDERS.items():
        if name not in have:
            click.echo(f"not here yet: {name} ({summary}): {command}", err=True)


@kernel.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: tuple[str, ...]) -> None:
    """Remove kernels that no machine uses, and templates that boot them."""
    from firkin.manager import template_keeping

    context = Context(load())
    default = context.settings.kernel
    used = [(record.name, record.spec.kernel or default) for record in context.machines.all()]
    try:
        for name in names:
            click.echo(shelf.remove(name, context.kernels, context.blobs, used).name)
        template_keeping.evict(context)
    finally:
        context.close()
