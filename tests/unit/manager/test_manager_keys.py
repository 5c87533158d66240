"""SSH keys: one for the user, one for each machine, which stays the same."""

from __future__ import annotations

import stat
from pathlib import Path

from firkin.manager import keys
from firkin.paths import Paths


def test_a_machine_that_starts_again_has_the_same_key(tmp_path: Path) -> None:
    paths, folder = Paths(tmp_path, tmp_path / "run"), tmp_path / "machine"
    folder.mkdir()
    first = keys.machine_identity(paths, folder, "web")
    assert keys.machine_identity(paths, folder, "web") == first
    assert keys.known_host(first, "web").startswith("web ssh-ed25519 AAAA")


def test_machines_share_the_users_key_and_not_their_own(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "run")
    identities = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        identities.append(keys.machine_identity(paths, tmp_path / name, name))
    assert identities[0].authorized_key == identities[1].authorized_key
    assert identities[0].host_key != identities[1].host_key


def test_private_keys_are_for_their_user_alone(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "run")
    key = keys.user_key(paths)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
