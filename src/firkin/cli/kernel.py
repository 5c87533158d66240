"""Verbs on kernels: pull, build, ls, rm."""

from __future__ import annotations

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
    click.echo(_describe(_refresh(name)))


@kernel.command()
def build() -> None:
    """Build the kernel that boots fastest (minutes); at once if nothing changed."""
    click.echo(_describe(_refresh("build")))


def _refresh(name: str) -> Kernel:
    show_progress()
    context = Context(load())
    try:
        return shelf.refresh(name, context.kernels, context.blobs, context.paths)
    finally:
        context.close()


def _describe(found: Kernel) -> str:
    return f"{found.name}: Linux {found.version}, {found.size_bytes / 2**20:.1f} MiB, sha256 {found.digest[:12]}"


@kernel.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(as_json: bool) -> None:
    """List kernels."""
    context = Context(load())
    kernels = context.kernels.all()
    context.close()
    if as_json:
        print_json(kernels)
        return
    rows = [(k.name, k.version, k.digest[:12], f"{k.size_bytes / 2**20:.1f} MiB", ago(k.created_at)) for k in kernels]
    print_table(("NAME", "VERSION", "SHA256", "SIZE", "CREATED"), rows)


@kernel.command()
@click.argument("name")
def rm(name: str) -> None:
    """Remove a kernel that no machine uses."""
    context = Context(load())
    default = context.settings.kernel
    used = [(record.name, record.spec.kernel or default) for record in context.machines.all()]
    try:
        shelf.remove(name, context.kernels, context.blobs, used)
    finally:
        context.close()
    click.echo(name)
