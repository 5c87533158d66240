"""Provider `build`: Debian's kernel source with firkin's configuration. Minutes once; after that, the store has it."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from firkin.errors import HostError, ProgramMissing
from firkin.host import apt
from firkin.host.files import write_atomic
from firkin.host.program import run_bound
from firkin.host.run import find, run
from firkin.kernel import config, extract
from firkin.kernel.provider import space_needed
from firkin.progress import Step, step
from firkin.store.blobs import Blobs
from firkin.store.kernels import Kernel

METAPACKAGE = "linux-source"
PREFIX = "linux-source-"
SPACE_MIB = 2600  # package 140, archive 140, tree 1,100, objects 300, and air
PROGRAMS = {
    "gcc": "gcc", "ld": "binutils", "strip": "binutils", "make": "make", "flex": "flex", "bison": "bison", "bc": "bc",
    "tar": "tar", "xz": "xz-utils", "dpkg-deb": "dpkg",
}  # fmt: skip
HEADERS = {"gelf.h": "libelf-dev", "stdio.h": "libc6-dev"}
# A quarter of the source that no x86 guest compiles, and that configuring does not read.
LEFT_OUT = ("drivers/gpu/drm/amd/include/*", "arch/arm*/boot/dts/*", "tools/testing/*")
USUAL_FILES = 1260  # compiled by our configuration of Linux 6.1; the cache knows better after the first build


def provide(former: Kernel | None, blobs: Blobs, cache: Path) -> Kernel:
    """A kernel of the host's newest kernel source; `former` when source, configuration and compiler are its own.

    Raises:
        HostError: tools are missing (all are named at once), no package lists, or the build failed.
        NoSpace: the disk is full, or too small to begin.
    """
    check_tools()
    package = apt.newest_behind(METAPACKAGE, PREFIX)
    fragment = files("firkin.kernel").joinpath("firkin.config").read_text()
    key = config.BuildKey(package.version, fragment, compiler())
    if former is not None and former.version.endswith(key.suffix):
        return former
    with blobs.workspace("kernel") as workspace:
        space_needed(workspace, SPACE_MIB)
        tree = fetch(package, workspace)
        configure(tree, key)
        compile_in(tree, cache / "kernel-build-files")
        return adopt(tree, blobs)


def check_tools() -> None:
    """See that all a kernel build needs is there, before minutes are spent.

    Raises:
        HostError: naming everything that is missing, with one command that installs it.
    """
    absent = {program: package for program, package in PROGRAMS.items() if not _has_program(program)}
    if "gcc" not in absent:
        absent |= {header: package for header, package in HEADERS.items() if not _has_header(header)}
    if absent:
        packages = " ".join(dict.fromkeys(absent.values()))
        raise HostError(
            f"cannot compile a kernel without {', '.join(absent)}",
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


def compiler() -> str:
    """The compiler's own name for itself and its version."""
    return run("gcc", "--version", timeout_s=30).stdout.partition("\n")[0]


def fetch(package: apt.Package, workspace: Path) -> Path:
    """Download and unpack the source; answers its folder."""
    with step(f"Fetching {package.name} {package.version}"):
        deb = apt.download(package, workspace)
        apt.unpack(deb, workspace)
        deb.unlink()
    with step("Unpacking the kernel's source"):
        archive = next((workspace / "usr/src").glob("linux-source-*.tar.*"))
        excludes = (f"--exclude=*/{pattern}" for pattern in LEFT_OUT)
        run_bound(("tar", "-C", str(workspace), *excludes, "-xf", str(archive)))
        archive.unlink()
    return next(folder for folder in workspace.glob("linux-source-*/") if (folder / "Kconfig").exists())


def configure(tree: Path, key: config.BuildKey) -> None:
    """Write the tree's .config.

    Raises:
        HostError: options of ours did not survive; they are named.
    """
    with step("Configuring the kernel"):
        _make(tree, "allnoconfig")
        with (tree / ".config").open("a") as file:
            file.write(f'{key.fragment}\nCONFIG_LOCALVERSION="{key.suffix}"\n')
        _make(tree, "olddefconfig")
    if names := config.lost(key.fragment, (tree / ".config").read_text()):
        raise HostError(f"kernel configuration: {tree.name} does not take {', '.join(names)}")


def compile_in(tree: Path, remembered: Path) -> None:
    """Make `vmlinux`; the file `remembered` holds how many files the last build compiled."""
    with step("Compiling the kernel") as progress:
        counter = _Counter(progress, _read_count(remembered))
        jobs = len(os.sched_getaffinity(0))
        _make(tree, f"-j{jobs}", "vmlinux", on_line=counter)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(remembered, f"{counter.done}\n")


def adopt(tree: Path, blobs: Blobs) -> Kernel:
    """Take the finished kernel into the store."""
    kernel = tree / "vmlinux"
    run("strip", "--strip-all", kernel, timeout_s=60)  # its symbols are as large as itself
    extract.check_elf(kernel.read_bytes())
    size_bytes = kernel.stat().st_size
    return Kernel(
        name="build",
        provider="build",
        version=(tree / "include/config/kernel.release").read_text().strip(),
        digest=blobs.adopt(kernel),
        modules_digest=None,
        size_bytes=size_bytes,
    )


class _Counter:
    """Counts the files that make says it compiles."""

    def __init__(self, progress: Step, total: int) -> None:
        self._progress = progress
        self._total = total
        self.done = 0

    def __call__(self, line: str) -> None:
        if line.lstrip().startswith("CC "):
            self.done += 1
            self._progress.advance(self.done, max(self._total, self.done), "files")


def _read_count(file: Path) -> int:
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        return USUAL_FILES


def _make(tree: Path, *arguments: str, on_line: _Counter | None = None) -> None:
    # make ends its own children on SIGTERM; killed outright, it would leave compilers at work.
    run_bound(("make", "-C", str(tree), *arguments), env=environment(), death_signal="TERM", on_line=on_line or _ignore)


def _ignore(_line: str) -> None:
    return


def environment() -> dict[str, str]:
    """Only what a build needs, the same everywhere: a user's MAKEFLAGS or CFLAGS must not end up in the kernel."""
    fixed = {"LC_ALL": "C", "KBUILD_BUILD_USER": "firkin", "KBUILD_BUILD_HOST": "firkin"}
    ours = {key: os.environ[key] for key in ("PATH", "TMPDIR", "HOME") if key in os.environ}
    return ours | fixed | {"KBUILD_BUILD_TIMESTAMP": "2024-01-01 00:00 UTC"}
