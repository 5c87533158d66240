"""OpenSSH's way into a machine: keywords of ssh_config(5), as options of a command line and as a Host block."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firkin.paths import Paths

KNOWN_HOSTS = "known_hosts"
PORT = 22
WAIT_S = 10  # sshd may start later than the agent
INDENT = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What one machine's logins need: `address` where it can be reached by routing, else None."""

    name: str
    address: str | None
    user_key: Path
    known_hosts: Path
    paths: Paths


def keywords(access: Access) -> dict[str, str]:
    """The keywords that lead to this machine and to no other, whatever else a user has configured."""
    return {
        **_route(access),
        "User": "root",
        "IdentityFile": quoted(access.user_key),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": quoted(access.known_hosts),
        "HostKeyAlias": access.name,
        "StrictHostKeyChecking": "yes",
        "LogLevel": "ERROR",
    }


def _route(access: Access) -> Mapping[str, str]:
    """Straight to the address, or through vsock. Naming a proxy keeps one of the user's own out."""
    if access.address is not None:
        return {"HostName": access.address, "ProxyCommand": "none", "ConnectionAttempts": str(WAIT_S)}
    command = [*firkin_argv(access.paths), "proxy", "--wait", str(WAIT_S), access.name, str(PORT)]
    return {"HostName": access.name, "ProxyCommand": shlex.join(command).replace("%", "%%")}


def firkin_argv(paths: Paths) -> list[str]:
    """How this firkin is called from anywhere, for the same home."""
    program = Path(sys.executable).with_name("firkin")
    argv = [str(program)] if program.exists() else [sys.executable, "-m", "firkin.cli"]
    chosen = paths.run == paths.home / "run"  # FIRKIN_HOME was set
    return ["env", f"FIRKIN_HOME={paths.home}", *argv] if chosen else argv


def quoted(path: Path) -> str:
    """A path as ssh_config(5) reads it: percent signs doubled, and within quotes where it needs them."""
    text = str(path).replace("%", "%%")
    if not any(sign in text for sign in " \t\"'\\#"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def options(access: Access) -> list[str]:
    """For the command line of ssh, scp and sftp."""
    return [word for key, value in keywords(access).items() for word in ("-o", f"{key}={value}")]


def host_block(access: Access) -> str:
    """For a file that `ssh -F` or Include reads."""
    lines = [f"{INDENT}{key} {value}\n" for key, value in keywords(access).items()]
    return "".join([f"Host {access.name}\n", *lines])
