"""The smallest useful root filesystem: one static BusyBox, its applets as links, and a few files in /etc."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from firkin.errors import HostError
from firkin.host.program import run_bound
from firkin.host.run import run
from firkin.image.recipe import SOURCE_DATE_EPOCH, Recipe
from firkin.progress import step

PACKAGE = "busybox-static"
HOST_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))
FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin", "etc", "root", "proc", "sys", "dev", "run", "tmp", "var", "home")
FILES: Mapping[str, str] = MappingProxyType(
    {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
        "etc/shadow": "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
        "etc/shells": "/bin/sh\n",
        "etc/hostname": "firkin\n",
        "etc/profile": "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        "export PS1='\\u@\\h:\\w\\$ '\n",
    }
)
MODES: Mapping[str, int] = MappingProxyType({"tmp": 0o1777, "root": 0o700, "etc/shadow": 0o600})


def links(applets: Iterable[str]) -> dict[str, str]:
    """Where each applet goes: path in the image → link target. `busybox --list-full` gives the paths."""
    return {path: "/bin/busybox" for path in sorted(set(applets)) if path and path != "bin/busybox"}


def make(recipe: Recipe, workspace: Path) -> Path:
    """Build the image in `workspace`; answers the squashfs file. Needs no privileges.

    Raises:
        HostError: there is no static BusyBox and none can be had.
    """
    tree, target = workspace / "tree", workspace / "root.squashfs"
    with step("Gathering BusyBox"):
        lay_out(tree, provide_busybox(workspace))
    # `-all-root`: whoever builds, root owns the files.
    options = ("-all-root", "-all-time", str(SOURCE_DATE_EPOCH), "-mkfs-time", str(SOURCE_DATE_EPOCH))
    with step("Packing the root filesystem"):
        run_bound(recipe.squash.argv(str(tree), target, *options))
    return target


def lay_out(tree: Path, busybox: Path) -> None:
    """Fill `tree` with folders, files, the program and its links."""
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True)
    for path, content in FILES.items():
        (tree / path).write_text(content)
    program = tree / "bin/busybox"
    program.write_bytes(busybox.read_bytes())
    program.chmod(0o755)
    for path, target in links(run(program, "--list-full").stdout.split()).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    for entry in tree.rglob("*"):
        if not entry.is_symlink():
            name = str(entry.relative_to(tree))
            entry.chmod(MODES.get(name, 0o755 if entry.is_dir() or entry == program else 0o644))
    tree.chmod(0o755)


def provide_busybox(workspace: Path) -> Path:
    """The host's own static BusyBox, or the one from Debian's package, unpacked beside."""
    for path in HOST_BUSYBOX:
        if path.exists() and is_static(path.read_bytes()):
            return path
    folder = workspace / "package"
    folder.mkdir()
    try:
        run("apt-get", "download", "-q", PACKAGE, cwd=folder, timeout_s=300)
    except HostError as error:
        raise HostError(
            f"busybox: no static one on this host: {error}", hint=f"sudo apt-get install {PACKAGE}"
        ) from error
    package = next(folder.glob("*.deb"))
    run("dpkg-deb", "-x", package, folder)
    return next(path for path in (folder / "bin/busybox", folder / "usr/bin/busybox") if path.exists())


PT_INTERP = 3


def is_static(elf: bytes) -> bool:
    """Whether a 64-bit little-endian ELF program names no dynamic loader."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return False
    table = int.from_bytes(elf[32:40], "little")
    size, count = (int.from_bytes(elf[at : at + 2], "little") for at in (54, 56))
    kinds = (int.from_bytes(elf[table + n * size :][:4], "little") for n in range(count))
    return PT_INTERP not in kinds
