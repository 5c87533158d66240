"""The few modules that a modular kernel needs to find its root, as one small cpio for the initramfs.

Layout, a contract with the guest program: `/lib/firkin/modules.load` names one file per line in load order; the files
lie in `/lib/firkin/modules/NAME.ko`, plain.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from firkin.agent.cpio import CpioEntry, write_cpio
from firkin.errors import HostError
from firkin.host.decompress import decompress

FOLDER = "lib/firkin/modules"
LIST = "lib/firkin/modules.load"

# What a guest cannot do without, in the order we want it; a name the kernel has built in is left out.
WANTED = ("virtio_mmio", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport", "virtio_rng", "squashfs", "overlay")
OPTIONAL = ("erofs", "ext4")


@dataclass(frozen=True, slots=True)
class Module:
    """One module: its name with underscores, its content, the names it needs."""

    name: str
    content: bytes
    depends: tuple[str, ...]


def load_order(wanted: Iterable[str], read: Callable[[str], Module]) -> list[Module]:
    """`wanted` and all they need, each after its needs, each once."""
    ordered: dict[str, Module] = {}
    open_names: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name in open_names:
            raise HostError(f"modules need each other in a circle: {' → '.join([*open_names, name])}")
        open_names.append(name)
        module = read(name)
        for need in module.depends:
            visit(need)
        open_names.pop()
        ordered[name] = module

    for name in wanted:
        visit(name)
    return list(ordered.values())


def module_info(content: bytes) -> dict[str, str]:
    """The `key=value` pairs of a module's .modinfo section (the last one wins; we read only keys that occur once)."""
    pairs = (entry.partition(b"=") for entry in _section(content, b".modinfo").split(b"\0") if entry)
    return {key.decode(): value.decode(errors="replace") for key, _, value in pairs}


def _section(content: bytes, wanted: bytes) -> bytes:
    """A section of a 64-bit little-endian ELF file (elf(5)).

    Raises:
        HostError: not such a file, or it has no section of that name.
    """
    if content[:6] != b"\x7fELF\x02\x01":
        raise HostError("kernel module: no 64-bit ELF header")
    try:
        (table,) = struct.unpack_from("<Q", content, 0x28)
        size, count, names_index = struct.unpack_from("<HHH", content, 0x3A)
        headers = [struct.unpack_from("<IIQQQQ", content, table + size * i) for i in range(count)]
        names = headers[names_index][4]
        for name, _type, _flags, _address, offset, length in headers:
            start = names + name
            if content[start : content.index(b"\0", start)] == wanted:
                return content[offset : offset + length]
    except (struct.error, ValueError, IndexError) as error:
        raise HostError(f"kernel module: damaged ELF file: {error}") from error
    raise HostError(f"kernel module: no {wanted.decode()} section")


def index(folder: Path) -> dict[str, Path]:
    """Every module file below `folder`, by its name with underscores (`virtio-rng.ko.xz` → `virtio_rng`)."""
    return {_module_name(file): file for file in sorted(folder.rglob("*.ko*"))}


def built_in(folder: Path) -> set[str]:
    """Names that the kernel has within itself, by the `modules.builtin` beside its modules."""
    listing = folder / "modules.builtin"
    return {_module_name(Path(line)) for line in listing.read_text().splitlines()} if listing.exists() else set()


def _module_name(file: Path) -> str:
    return file.name.partition(".ko")[0].replace("-", "_")


def read_module(name: str, files: Mapping[str, Path]) -> Module:
    """One module from disk, expanded.

    Raises:
        HostError: the kernel's package has no such module.
    """
    if name not in files:
        raise HostError(f"kernel module {name!r}: neither built in nor in the package")
    content = decompress(files[name].read_bytes())
    depends = module_info(content).get("depends", "")
    return Module(name, content, tuple(need.replace("-", "_") for need in depends.split(",") if need))


def select(folder: Path) -> list[Module]:
    """What the guest must load, in order, out of a kernel's /lib/modules/VERSION.

    Raises:
        HostError: a module that a guest cannot do without is missing or damaged.
    """
    files, inside = index(folder), built_in(folder)
    wanted = [name for name in WANTED if name not in inside]
    wanted += [name for name in OPTIONAL if name in files and name not in inside]
    return load_order(wanted, lambda name: read_module(name, files))


def write_archive(modules: Iterable[Module]) -> bytes:
    """The cpio for the initramfs: the list and the files."""
    content = {f"{FOLDER}/{module.name}.ko": module.content for module in modules}
    listing = "".join(f"/{path}\n" for path in content)
    return write_cpio(CpioEntry.file(path, data) for path, data in {LIST: listing.encode(), **content}.items())
