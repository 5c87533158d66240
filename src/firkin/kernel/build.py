"""Provider `build`: the distribution's Linux source with firkin's own configuration; minutes once, then cached."""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib import resources
from pathlib import Path

from firkin.errors import HostError, ProgramMissing
from firkin.host.program import run_bound
from firkin.host.run import find, run
from firkin.kernel import extract, package
from firkin.progress import Step, step
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel

METAPACKAGE = "linux-source"
SOURCE_PACKAGE = r"linux-source-[0-9.]+"
TOOLS = ("gcc", "make", "flex", "bison", "bc", "xz", "tar")
LIBELF = Path("/usr/include/libelf.h")
OBJECTS = 1700  # files compiled with our configuration on Linux 6.1: only the progress display looks at it


def fragment() -> str:
    """Our options, as `make allnoconfig` reads them."""
    return resources.files("firkin.kernel").joinpath("firkin.config").read_text()


def wanted(text: str) -> dict[str, str]:
    """Option → value of a configuration file."""
    lines = (line.strip() for line in text.splitlines())
    return dict(line.split("=", 1) for line in lines if line.startswith("CONFIG_"))


def lost(asked: dict[str, str], got: dict[str, str]) -> list[str]:
    """Options that the kernel's own rules did not let us have."""
    return sorted(f"{key}={value}" for key, value in asked.items() if got.get(key, "n") != value)


def source() -> str:
    """What decides the result: source version, configuration and compiler."""
    name = package.dependency(METAPACKAGE, SOURCE_PACKAGE)
    config = hashlib.sha256(fragment().encode()).hexdigest()[:12]
    compiler = run("gcc", "-dumpfullversion").stdout.strip()
    return f"{name} {package.version(name)}, config {config}, gcc {compiler}"


def check_tools() -> None:
    """Refuse before minutes are spent.

    Raises:
        ProgramMissing: with the package to install.
    """
    for tool in TOOLS:
        find(tool)
    if not LIBELF.exists():
        raise ProgramMissing("libelf.h", package="libelf-dev")


def provide(name: str, blobs: Blobs) -> Kernel:
    """Fetch the source, configure, compile, adopt.

    Raises:
        ProgramMissing: a build tool is not installed.
        HostError: the source no longer takes our configuration, or a step failed.
    """
    check_tools()
    origin = source()
    with blobs.workspace("kernel") as folder:
        tree = _unpacked(origin.split()[0], folder)
        _configure(tree)
        with step("Compiling Linux") as progress:
            _compile(tree, progress)
        kernel = tree / "vmlinux"
        extract.check_elf(kernel.read_bytes())
        size_bytes = kernel.stat().st_size
        release = (tree / "include/config/kernel.release").read_text().strip()
        return Kernel(
            name=name,
            provider="build",
            version=release,
            source=origin,
            digest=blobs.adopt(kernel),
            modules_digest=None,
            size_bytes=size_bytes,
        )


def _unpacked(source_package: str, folder: Path) -> Path:
    deb = package.fetch(source_package, folder)
    package.unpack(deb, folder / "root")
    with step("Unpacking Linux"):
        run_bound(["tar", "-C", str(folder), "-xf", str(next((folder / "root/usr/src").glob("*.tar.xz")))])
    shutil.rmtree(folder / "root")
    return folder / source_package


def _configure(tree: Path) -> None:
    config = tree.parent / "firkin.config"
    config.write_text(fragment())
    run_bound(["make", "-s", "-C", str(tree), "allnoconfig"], env=os.environ | {"KCONFIG_ALLCONFIG": str(config)})
    missing = lost(wanted(fragment()), wanted((tree / ".config").read_text()))
    if missing:
        raise HostError(f"kernel configuration: this Linux does not take {', '.join(missing)}")


def _compile(tree: Path, progress: Step) -> None:
    done = 0

    def count(line: str) -> None:
        nonlocal done
        if line.startswith("  "):  # one line per file in make's short form: "  CC      fs/open.o"
            done += 1
            progress.advance(done, max(done, OBJECTS), "files")

    run_bound(["nice", "make", "-C", str(tree), f"-j{os.cpu_count() or 1}", "vmlinux"], on_line=count)
