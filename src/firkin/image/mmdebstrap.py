"""Trees of Debian packages, from the host's own mirrors. mmdebstrap does the work; what goes in is a `Tree`."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firkin.errors import HostError, NoSpace, ProgramFailed, ProgramMissing
from firkin.host.program import run_bound
from firkin.host.run import find
from firkin.image import sources
from firkin.image.recipe import SOURCE_DATE_EPOCH, Recipe
from firkin.progress import Step, step

# mksquashfs ignores the archive's entry for the root and would leave it open to all.
ROOT_OPTIONS = ("-root-mode", "0755", "-root-uid", "0", "-root-gid", "0")
DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    *(f"path-exclude=/usr/share/{folder}/*" for folder in ("man", "info", "locale", "lintian", "bash-completion")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What to install, and the shell script that changes the tree afterwards: its first argument is the tree's root."""

    suite: str
    variant: str  # as mmdebstrap names it
    packages: tuple[str, ...]
    script: str
    needed_mib: int  # packages, tree, archive and image side by side


def mmdebstrap_argv(tree: Tree, lists: tuple[sources.Source, ...], target: Path, *, root: bool) -> tuple[str, ...]:
    """The command that writes the whole tree as a tar archive to `target`."""
    command = (
        "mmdebstrap", "--verbose", f"--variant={tree.variant}", "--format=tar",
        f"--mode={'root' if root else 'unshare'}",
        f"--include={','.join(tree.packages)}", '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
        f"--keyring={sources.DEBIAN_KEYRING}",
        f"--customize-hook={tree.script}",
        tree.suite, str(target), *(source.line() for source in lists),
    )  # fmt: skip
    # A namespace of its own takes mounts and processes with it, however the build ends.
    return ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command) if root else command


def environment(environ: Mapping[str, str], workspace: Path, *, root: bool) -> dict[str, str]:
    """What mmdebstrap sees: our PATH with the system folders, fixed times, and a scratch folder we sweep."""
    path = environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    kept = {key: value for key, value in environ.items() if key.lower().endswith("_proxy") or key == "HOME"}
    # Subordinate users cannot enter a private home, so only root builds inside the workspace.
    scratch = {"TMPDIR": str(workspace)} if root else {}
    return kept | scratch | {"PATH": path, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)}


def make(tree: Tree, recipe: Recipe, workspace: Path) -> Path:
    """Build the image in `workspace`; answers the squashfs file.

    Raises:
        ProgramMissing, HostError: the host cannot build Debian, or the mirrors could not be read.
    """
    root = os.geteuid() == 0
    check_host(root=root)
    check_space(tree.needed_mib, workspace.parent, shutil.disk_usage(workspace).free)
    archive, target = workspace / "root.tar", workspace / "root.squashfs"
    lists = sources.for_suite(sources.read_host(), tree.suite)
    env = environment(os.environ, workspace, root=root)
    with step(f"Installing Debian {tree.suite}") as progress:
        try:
            run_bound(mmdebstrap_argv(tree, lists, archive, root=root), env=env, on_line=_Counter(progress))
        except ProgramFailed as error:
            raise explain(error, lists) from error
    with step("Packing the root filesystem"):
        options = ("-tar", *ROOT_OPTIONS)
        run_bound(recipe.squash.argv("-", target, *options), env=env, input_file=archive)
    return target


class _Counter:
    """Turns dpkg's chatter into a number that rises."""

    def __init__(self, progress: Step) -> None:
        self._progress = progress
        self._done = 0

    def __call__(self, line: str) -> None:
        if line.startswith("Setting up "):
            self._done += 1
            self._progress.advance(self._done, unit="packages set up")


def check_host(*, root: bool) -> None:
    """Refuse early what mmdebstrap would refuse late and at length.

    Raises:
        ProgramMissing, HostError: with the command that mends it.
    """
    for program in ("mmdebstrap", "mksquashfs", "apt-get", "unshare", "setpriv"):
        find(program)
    if not Path(sources.DEBIAN_KEYRING).exists():
        raise HostError(
            f"{sources.DEBIAN_KEYRING}: not found, so packages cannot be verified",
            hint="sudo apt-get install debian-archive-keyring",
        )
    if not root:
        _check_subordinate_ids(pwd.getpwuid(os.geteuid()).pw_name)


def check_space(needed_mib: int, folder: Path, free_bytes: int) -> None:
    """Refuse before the download: on a full disk apt-get waits for ever in place of failing.

    Raises:
        NoSpace: with what is needed and what there is.
    """
    if free_bytes < needed_mib * 2**20:
        raise NoSpace(
            f"{folder}: disk full: building Debian needs {needed_mib} MiB, {free_bytes // 2**20} MiB are free",
            hint="free some space, or set FIRKIN_HOME elsewhere",
        )


def _check_subordinate_ids(user: str, files: tuple[Path, ...] = (Path("/etc/subuid"), Path("/etc/subgid"))) -> None:
    try:
        find("newuidmap")
    except ProgramMissing as error:
        raise ProgramMissing("newuidmap", package="uidmap") from error
    for file in files:
        names = {line.split(":")[0] for line in file.read_text().splitlines()} if file.exists() else set()
        if not names & {user, str(os.geteuid())}:
            raise HostError(
                f"{file}: no subordinate ids for {user}, so Debian can only be built by root",
                hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {shlex.quote(user)}",
            )


def explain(error: ProgramFailed, lists: tuple[sources.Source, ...]) -> HostError:
    """The cause among mmdebstrap's many lines, where it is one that we know."""
    if "Could not resolve" in error.output or "Failed to fetch" in error.output or "Could not connect" in error.output:
        mirrors = ", ".join(sorted({source.uri for source in lists}))
        return HostError(
            f"mmdebstrap: cannot read {mirrors}", hint="check the network and the host's own `apt-get update`"
        )
    if "NO_PUBKEY" in error.output or "is not signed" in error.output:
        return HostError(
            "mmdebstrap: the mirror's signature does not verify",
            hint="sudo apt-get install --only-upgrade debian-archive-keyring",
        )
    lines = [line for line in error.output.splitlines() if line.startswith("E:")] or error.output.splitlines()[-4:]
    return HostError("mmdebstrap failed:\n" + "\n".join(lines), hint="build it as root: sudo firkin image build NAME")
