"""Snapshots out of this home, for `arrival` in another: one tar file, compressed if its name ends with .zst.

snapshot.json         what they are (portable.Manifest)
ID/state, ID/memory   of each link of the chain, the full one first; memory as a sparse file (GNU's format 1.0)
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import msgspec

from firkin.agent.archive import END, in_large_pieces, member
from firkin.agent.sparse import MAX_MAP_ENTRIES, Extent
from firkin.errors import HostError
from firkin.host import run, sparse, zstd
from firkin.manager import snapshots
from firkin.manager.context import Context
from firkin.manager.portable import MANIFEST, Digests, Link, Manifest, to_link
from firkin.manager.snapshot_files import Files, digests
from firkin.store.snapshots import SnapshotRecord

EMULATOR = "qemu-system-x86_64"


def export_to(context: Context, record: SnapshotRecord, path: Path, *, merge: bool = False) -> None:
    """Write a snapshot and those it is a difference from into `path`; with `merge`, as one full snapshot.

    Raises:
        NoSpace, HostError: it cannot be written, or there is no zstd; nothing is left.
    """
    links = [merged(context, record)] if merge else _own(context, record)
    manifest = Manifest(emulator=emulator(), links=tuple(link for link, _ in links))
    with _whole_file(path) as target:
        for piece in in_large_pieces(_archive(manifest, [files for _, files in links])):
            target.write(piece)


def _own(context: Context, record: SnapshotRecord) -> list[tuple[Link, Files]]:
    chain = [snapshots.sealed(context, link) for link in snapshots.chain(context, record)]
    return [(to_link(link), Files.of(context.paths, link.id)) for link in chain]


def merged(context: Context, record: SnapshotRecord) -> tuple[Link, Files]:
    """A difference as a snapshot of its own. It has another id: it is another thing."""
    if record.parent is None:
        return _own(context, record)[0]
    files = snapshots.materialize(context, record)
    state, memory = digests(files).values()
    link = to_link(snapshots.sealed(context, record))
    return msgspec.structs.replace(link, id=memory[:12], digests=Digests(state=state, memory=memory)), files


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there whole or not at all."""
    try:
        fd, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}", hint=f"ls -ld {path.parent}") from error
    try:
        with snapshots.room(path), os.fdopen(fd, "wb") as file:
            with zstd.packing(file) if path.suffix == ".zst" else nullcontext(file) as target:
                yield target
            file.flush()
            os.fsync(fd)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _archive(manifest: Manifest, files: list[Files]) -> Iterator[bytes]:
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    info = tarfile.TarInfo(MANIFEST.decode())
    info.size = len(text)
    yield info.tobuf() + text + bytes(-len(text) % tarfile.BLOCKSIZE)
    for link, own in zip(manifest.links, files, strict=True):
        yield from _stored(own.state, f"{link.id}/state", link)
        yield from _stored(own.memory, f"{link.id}/memory", link)
    yield END


def _stored(path: Path, name: str, link: Link) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = 0o600, int(link.created_at)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        # Not one page more or less: of a difference a hole says that nothing changed there.
        parts = [Extent(start, end - start) for start, end in sparse.data_extents(fd, size)]
        if len(parts) >= MAX_MAP_ENTRIES:
            raise HostError(f"snapshot {link.name!r}: memory in {len(parts)} pieces", hint="export it with --merge")
        yield from member(fd, str(path), info, parts, size)
    finally:
        os.close(fd)


def emulator() -> str:
    """What QEMU calls itself here; empty where there is none."""
    if shutil.which(EMULATOR) is None:
        return ""
    said = run.run(EMULATOR, "--version", check=False, timeout_s=10).stdout.splitlines()
    return said[0][:200] if said else ""
