"""Modules: their needs come first, each once, and the archive keeps its contract with the guest program."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin.errors import HostError
from firkin.kernel import modules
from firkin.kernel.modules import Module


def ko(info: bytes) -> bytes:
    """An ELF file with a .modinfo section and the table of names, nothing else."""
    names = b"\0.modinfo\0.shstrtab\0"
    table = 64 + len(info) + len(names)
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x28, table)
    struct.pack_into("<HHH", header, 0x3A, 64, 3, 2)
    sections = (
        bytes(64),
        struct.pack("<IIQQQQ", 1, 1, 0, 0, 64, len(info)).ljust(64, b"\0"),
        struct.pack("<IIQQQQ", 10, 3, 0, 0, 64 + len(info), len(names)).ljust(64, b"\0"),
    )
    return bytes(header) + info + names + b"".join(sections)


def read_from(needs: dict[str, tuple[str, ...]]) -> Callable[[str], Module]:
    return lambda name: Module(name, name.encode(), needs[name])


def test_each_module_follows_its_needs_and_comes_once() -> None:
    needs = {
        "blk": ("virtio", "ring"),
        "net": ("ring", "virtio", "failover"),
        "virtio": ("ring",),
        "ring": (),
        "failover": (),
    }
    order = modules.load_order(("blk", "net"), read_from(needs))
    assert [module.name for module in order] == ["ring", "virtio", "blk", "failover", "net"]


def test_a_circle_is_named() -> None:
    with pytest.raises(HostError, match="a → b → a"):
        modules.load_order(("a",), read_from({"a": ("b",), "b": ("a",)}))


def test_modinfo_is_read_from_its_section() -> None:
    info = modules.module_info(ko(b"license=GPL\0depends=virtio,virtio_ring\0name=virtio_blk\0"))
    assert info == {"license": "GPL", "depends": "virtio,virtio_ring", "name": "virtio_blk"}


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01", ko(b"x=y\0")[:100], b"MZ" * 50])
def test_a_damaged_module_is_an_error(content: bytes) -> None:
    with pytest.raises(HostError, match="kernel module"):
        modules.module_info(content)


def lay_out(folder: Path, *, built_in: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Path:
    """A /lib/modules/VERSION with all we want, each in need of `virtio-ring`."""
    folder.mkdir()
    (folder / "modules.builtin").write_text("".join(f"kernel/drivers/{name}.ko\n" for name in built_in))
    for name in {*modules.WANTED, *modules.OPTIONAL} - set(without):
        file = folder / f"{name.replace('_', '-')}.ko.gz"
        file.write_bytes(gzip.compress(ko(b"depends=virtio-ring\0")))
    (folder / "virtio-ring.ko").write_bytes(ko(b"depends=\0"))
    return folder


def test_compressed_modules_and_dashes_in_names_are_understood(tmp_path: Path) -> None:
    chosen = modules.select(lay_out(tmp_path / "modules"))
    assert [module.name for module in chosen] == ["virtio_ring", *modules.WANTED, *modules.OPTIONAL]
    assert all(module.content.startswith(b"\x7fELF") for module in chosen)


def test_what_the_kernel_has_built_in_is_left_out(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "modules", built_in=("ext4", "virtio_blk"), without=("erofs",))
    names = {module.name for module in modules.select(folder)}
    assert names == {"virtio_ring", *modules.WANTED} - {"virtio_blk"}


def test_a_module_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="'squashfs': neither built in nor in the package"):
        modules.select(lay_out(tmp_path / "modules", without=("squashfs",)))


def unpack(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Read a newc archive: name → mode and content."""
    entries: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, archive[start : start + size])
        at = (start + size + 3) & ~3


def test_the_archive_lists_its_files_in_load_order() -> None:
    chosen = [Module("virtio_ring", b"ring", ()), Module("virtio", b"other", ("virtio_ring",))]
    entries = unpack(modules.write_archive(chosen))
    assert entries["lib/firkin/modules.load"] == (
        0o100644,
        b"/lib/firkin/modules/virtio_ring.ko\n/lib/firkin/modules/virtio.ko\n",
    )
    assert entries["lib/firkin/modules/virtio_ring.ko"] == (0o100644, b"ring")
    assert [name for name, (mode, _) in entries.items() if mode == 0o040755] == [
        "lib",
        "lib/firkin",
        "lib/firkin/modules",
    ]


def test_the_same_modules_make_the_same_bytes() -> None:
    chosen = [Module("squashfs", b"content", ())]
    assert modules.write_archive(chosen) == modules.write_archive(chosen)
