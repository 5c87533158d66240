"""The one door to programs: a failure shows a line you can paste."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath

from firkin.errors import HostError, ProgramFailed, ProgramMissing

# Debian's package where it is not named like its program.
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
    "mkfs.ext4": "e2fsprogs",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "apt-cache": "apt",
}


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program left behind."""

    returncode: int
    stdout: str
    stderr: str


def find(program: str) -> str:
    """Absolute path of `program`, also where /usr/sbin is not on the PATH.

    Raises:
        ProgramMissing: with Debian's package as the hint.
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise ProgramMissing(program, package=PACKAGES.get(program, program))
    return path


def run(
    *argv: str | PathLike[str],
    input: str | None = None,  # noqa: A002 - subprocess's own name for it
    env: Mapping[str, str] | None = None,
    cwd: str | PathLike[str] | None = None,
    timeout_s: float | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and keep what it says. It never reads our terminal.

    Raises:
        ProgramMissing: it is not installed.
        ProgramFailed: it exited non-zero and `check` is set.
        HostError: it took longer than `timeout_s` seconds (it is killed).
    """
    command = [fspath(part) for part in argv]
    command[0] = find(command[0])
    try:
        done = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env=None if env is None else dict(env),
            cwd=cwd,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{command[0]}: still running after {timeout_s:g} s") from error
    if check and done.returncode != 0:
        raise ProgramFailed([fspath(part) for part in argv], done.returncode, done.stderr or done.stdout)
    return Completed(done.returncode, done.stdout, done.stderr)
