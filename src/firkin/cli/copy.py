"""`firkin cp`: files between host and guest, or a tar archive on stdin and stdout; docker cp's way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from firkin import progress
from firkin.cli.shell import write_all
from firkin.errors import UsageError
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine

if TYPE_CHECKING:
    from firkin.manager.copy import Copied

READ_BYTES = 1 << 16
STREAM = "-"
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


class End(NamedTuple):
    """One end of a copy; `machine` is None for this host."""

    machine: str | None
    path: str


def parse_end(text: str) -> End:
    """NAME:PATH is in a machine. A path that starts with `/` or `.` is this host's, whatever colons are in it."""
    name, colon, path = text.partition(":")
    if not colon or not name or text.startswith(("/", ".")):
        return End(None, text)
    return End(name, path or "/")


@click.command()
@click.option("-a", "--archive", is_flag=True, help="Keep owners; set-user-id bits and devices too, if you are root.")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a link at SOURCE points to.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless it fails.")
@click.option("--max-bytes", type=click.IntRange(min=0), metavar="N", help="Take no more than that from a machine.")
@click.argument("source")
@click.argument("target")
def cp(source: str, target: str, archive: bool, follow_link: bool, quiet: bool, max_bytes: int | None) -> None:
    """Copy files between this host and a machine.

    \b
    firkin cp notes.txt web:/root/
    firkin cp web:/var/log/. logs
    tar c . | firkin cp - web:/srv

    One of SOURCE and TARGET is NAME:PATH, or both. A TARGET that is a folder gets SOURCE inside, otherwise SOURCE is
    called TARGET; SOURCE/. is what is in the folder. With `-` as SOURCE a tar archive is read from stdin, as TARGET one
    is written to stdout.
    """
    ends = parse_end(source), parse_end(target)
    _expect_possible(*ends)
    with Firkin() as firkin, _shown(quiet):
        machines = [firkin.machine(end.machine) if end.machine else None for end in ends]
        done = _copy(ends, machines[0], machines[1], archive, follow_link, max_bytes)
    if done is not None:
        _report(done, target, quiet)


def _expect_possible(source: End, target: End) -> None:
    if source.machine is None and target.machine is None:
        raise UsageError("cp: neither end is in a machine", hint="firkin cp FILE NAME:/tmp/, or NAME:/etc/os-release .")
    if target == (None, STREAM) and sys.stdout.isatty():
        raise UsageError("cp: an archive is not for a terminal", hint="firkin cp NAME:PATH - | tar t")


def _copy(
    ends: tuple[End, End],
    source: Machine | None,
    target: Machine | None,
    archive: bool,
    follow: bool,
    max_bytes: int | None,
) -> Copied | None:
    here, there = ends
    if source is not None and target is not None:
        return source.copy_across(here.path, target, there.path, follow=follow)
    if target is not None:
        if here.path == STREAM:
            return target.archive_in(_from_stdin(), there.path)
        return target.copy_in(here.path, there.path, archive=archive, follow=follow)
    assert source is not None
    if there.path != STREAM:
        return source.copy_out(here.path, there.path, archive=archive, follow=follow, max_bytes=max_bytes)
    for piece in source.archive_out(here.path, follow=follow):
        write_all(sys.stdout.fileno(), piece)
    return None


def _from_stdin() -> Iterator[bytes]:
    begins = True
    while piece := os.read(sys.stdin.fileno(), READ_BYTES):
        if begins and piece.startswith(COMPRESSED):
            raise UsageError(
                "stdin: a compressed archive", hint="unpack it on the way: zcat ARCHIVE | firkin cp - NAME:PATH"
            )
        begins = False
        yield piece


@contextmanager
def _shown(quiet: bool) -> Iterator[None]:
    """A progress bar on stderr, if somebody looks at it."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from firkin.cli.bar import BarReporter

    with BarReporter() as bar:
        progress.install(bar)
        yield


def _report(done: Copied, target: str, quiet: bool) -> None:
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    if not quiet and sys.stderr.isatty():
        click.echo(f"copied {done.size / 2**20:.1f} MiB to {target}", err=True)
