"""SSH keys, ed25519, made by OpenSSH's own program: one pair per user, one host key per machine."""

from __future__ import annotations

from pathlib import Path

from firkin.host.lock import locked
from firkin.host.run import run
from firkin.manager.guest import Identity
from firkin.paths import Paths


def user_key(paths: Paths) -> Path:
    """The private key with which this user logs in to all of their machines; made on first use, mode 0600."""
    key = paths.keys / "id_ed25519"
    if not key.exists():
        paths.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(paths.keys / ".lock"):
            if not key.exists():
                _generate(key, "firkin")
    return key


def machine_identity(paths: Paths, folder: Path, name: str) -> Identity:
    """Keys for one machine; its host key lives in `folder`, which is private and goes with the machine."""
    host_key = folder / "ssh_host_ed25519_key"
    if not host_key.exists():
        _generate(host_key, name)
    return Identity(
        authorized_key=_public(user_key(paths)).read_bytes(),
        host_key=host_key.read_bytes(),
        host_key_public=_public(host_key).read_bytes(),
    )


def known_host(identity: Identity, alias: str) -> str:
    """A known_hosts line: we made the key, so nobody needs to trust on first use."""
    kind, key = identity.host_key_public.decode().split()[:2]
    return f"{alias} {kind} {key}\n"


def _public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def _generate(key: Path, comment: str) -> None:
    # Aside first: a killed ssh-keygen must not leave half a key under the final name.
    aside = key.with_name(f".{key.name}.new")
    for leftover in (aside, _public(aside)):
        leftover.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", aside)
    _public(aside).replace(_public(key))
    aside.replace(key)
