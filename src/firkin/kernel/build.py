"""Provider `build`: the distribution's Linux source with firkin's own configuration; minutes once, then cached."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from firkin.errors import HostError, NoSpace, ProgramMissing
from firkin.host import vmlinux
from firkin.host.program import run_bound
from firkin.host.run import find, run
from firkin.kernel import config, package, symbols
from firkin.progress import Step, step
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel

METAPACKAGE = "linux-source"
SOURCE_PREFIX = "linux-source-"
NEEDED_MIB = 2000  # archive 140, source 1,250, objects 400, and air
PROGRAMS = {
    "gcc": "gcc", "ld": "binutils", "strip": "binutils", "make": "make", "flex": "flex", "bison": "bison", "bc": "bc",
    "tar": "tar", "xz": "xz-utils", "dpkg-deb": "dpkg", "apt-get": "apt",
}  # fmt: skip
HEADERS = {"gelf.h": "libelf-dev", "stdio.h": "libc6-dev"}
# The larger part of what no x86 guest compiles; configuring reads only Kconfig files, which stay.
LEFT_OUT = ("drivers/gpu/drm/amd/include/*", "arch/arm*/boot/dts/*", "tools/testing/*")
OBJECTS = 1351  # files compiled with our configuration on Linux 6.1: only the progress display looks at it


class Variant(NamedTuple):
    """A provider of kernels with a user's options laid over ours."""

    overlay: str

    def source(self) -> str:
        return source(self.overlay)

    def provide(self, name: str, blobs: Blobs) -> Kernel:
        return provide(name, blobs, self.overlay)


def fragment(overlay: str = "") -> str:
    """Our options, as they are laid over `make allnoconfig`, and over them a user's own."""
    return resources.files("firkin.kernel").joinpath("firkin.config").read_text() + config.as_fragment(overlay)


def source(overlay: str = "") -> str:
    """What decides the result: source version, configuration and compiler."""
    check_tools()
    return _describe(package.newest(METAPACKAGE, SOURCE_PREFIX), overlay)


def _describe(origin: package.Package, overlay: str) -> str:
    digest = hashlib.sha256(fragment(overlay).encode()).hexdigest()[:12]
    compiler = run("gcc", "-dumpfullversion", timeout_s=30).stdout.strip()
    return f"{origin.name} {origin.version}, config {digest}, gcc {compiler}, keeps {symbols.RANDOM_STATE}"


def check_tools() -> None:
    """See that all a kernel build needs is there, before minutes are spent.

    Raises:
        HostError: naming everything that is missing, with one command that installs it.
    """
    missing = {program: name for program, name in PROGRAMS.items() if not _has_program(program)}
    if "gcc" not in missing:
        missing |= {header: name for header, name in HEADERS.items() if not _has_header(header)}
    if missing:
        packages = " ".join(dict.fromkeys(missing.values()))
        raise HostError(
            f"a kernel cannot be compiled without {', '.join(missing)}",
            hint=f"sudo apt-get install --no-install-recommends {packages}",
        )


def _has_program(program: str) -> bool:
    try:
        find(program)
    except ProgramMissing:
        return False
    return True


def _has_header(header: str) -> bool:
    return run("gcc", "-E", "-include", header, "-x", "c", "/dev/null", timeout_s=30, check=False).returncode == 0


def provide(name: str, blobs: Blobs, overlay: str = "") -> Kernel:
    """Fetch the source, configure, compile, adopt.

    Raises:
        HostError: tools are missing, the source no longer takes our configuration, or a step failed.
        NoSpace: the disk is full, or too small to begin.
    """
    check_tools()
    origin = package.newest(METAPACKAGE, SOURCE_PREFIX)
    with blobs.workspace("kernel") as folder:
        check_space(folder, shutil.disk_usage(folder).free >> 20)
        tree = unpack(origin, folder)
        configure(tree, fragment(overlay))
        with step("Compiling Linux") as progress:
            compile_in(tree, progress)
        return adopt(name, _describe(origin, overlay), tree, blobs)


def check_space(folder: Path, free_mib: int) -> None:
    """Refuse at once what would fail after minutes.

    Raises:
        NoSpace: a build would fill the disk.
    """
    if free_mib < NEEDED_MIB:
        raise NoSpace(
            f"{folder.parent}: {free_mib} MiB free, a kernel build takes {NEEDED_MIB}",
            hint="free some space, or set FIRKIN_HOME elsewhere",
        )


def unpack(origin: package.Package, folder: Path) -> Path:
    """Lay the source below `folder`; answers its own folder.

    Raises:
        HostError: the package cannot be fetched.
        NoSpace: the disk filled up.
    """
    package.unpack(package.fetch(origin, folder), folder / "root")
    archive = next((folder / "root/usr/src").glob("linux-source-*.tar.*"))
    with step("Unpacking Linux"):
        run_bound(("tar", "-C", str(folder), *(f"--exclude=*/{path}" for path in LEFT_OUT), "-xf", str(archive)))
    shutil.rmtree(folder / "root")
    return folder / origin.name


def configure(tree: Path, options: str) -> None:
    """Write the tree's .config: `options`, and the kernel's own defaults for what they bring along.

    Raises:
        HostError: some of the options did not survive; they are named.
    """
    with step("Configuring Linux"):
        _make(tree, "allnoconfig")
        # Of two lines for an option the later one wins.
        with (tree / ".config").open("a") as file:
            file.write(options)
        _make(tree, "olddefconfig")
    if missing := config.lost(options, (tree / ".config").read_text()):
        raise HostError(f"kernel configuration: {tree.name} does not take {', '.join(missing)}")


def compile_in(tree: Path, progress: Step) -> None:
    """Make `vmlinux` in a configured tree.

    Raises:
        ProgramFailed: with the compiler's last words.
        NoSpace: the disk filled up.
    """
    done = 0

    def count(line: str) -> None:
        nonlocal done
        if line.lstrip().startswith("CC "):  # make's short form: "  CC      fs/open.o"
            done += 1
            progress.advance(done, max(done, OBJECTS), "files")

    _make(tree, f"-j{len(os.sched_getaffinity(0))}", "vmlinux", on_line=count)


def adopt(name: str, origin: str, tree: Path, blobs: Blobs) -> Kernel:
    """Take the finished `vmlinux` into the store.

    Raises:
        HostError: what was compiled is no x86_64 kernel.
    """
    kernel = tree / "vmlinux"
    # The VMM would read symbols as large as the rest; it wants one, to reseed the random numbers of restored guests.
    run("strip", "--strip-all", f"--keep-symbol={symbols.RANDOM_STATE}", kernel, timeout_s=60)
    vmlinux.check_elf(kernel.read_bytes())
    size_bytes = kernel.stat().st_size
    return Kernel(
        name=name,
        provider="build",
        version=(tree / "include/config/kernel.release").read_text().strip(),
        source=origin,
        digest=blobs.adopt(kernel),
        modules_digest=None,
        size_bytes=size_bytes,
    )


def _make(tree: Path, *arguments: str, on_line: Callable[[str], None] = lambda _line: None) -> None:
    # On SIGTERM make ends its children; killed outright it would leave compilers at work in a folder that is swept.
    argv = ("nice", "make", "-C", str(tree), *arguments)
    run_bound(argv, env=environment(os.environ), death_signal="TERM", on_line=on_line)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Only what a build needs: a user's MAKEFLAGS or KCFLAGS must not end up in the kernel."""
    ours = {key: environ[key] for key in ("PATH", "TMPDIR", "HOME") if key in environ}
    fixed = {"LC_ALL": "C", "KBUILD_BUILD_USER": "firkin", "KBUILD_BUILD_HOST": "firkin"}
    return ours | fixed | {"KBUILD_BUILD_TIMESTAMP": "2024-01-01 00:00 UTC"}
