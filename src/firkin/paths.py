"""Where each file lives. Paths only: nothing here touches the disk.

`FIRKIN_HOME` moves everything below one folder. Without it root uses /var/lib/firkin and /run/firkin, others the XDG
base directories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# In a machine's run folder: two that its engine makes, and a link to its image. A restored machine opens its disk under
# the name that it had when it was saved, so that name must be good for every machine of every home.
VSOCK_SOCKET = "vsock.sock"
METRICS = "metrics.json"
ROOT = "root"

# The variable that tells an engine which zygote keeps sleeping copies of its QEMU.
NEST = "FIRKIN_NEST"


@dataclass(frozen=True, slots=True)
class Paths:
    """The two roots, and every name below them."""

    home: Path  # survives a reboot: store, blobs, logs, keys
    run: Path  # gone after a reboot: sockets, locks, per-machine boot files

    @classmethod
    def resolve(cls, environ: Mapping[str, str], uid: int) -> Paths:
        """Choose the roots for this user and environment."""
        if home := environ.get("FIRKIN_HOME"):
            root = Path(home).expanduser().absolute()
            return cls(root, root / "run")
        if uid == 0:
            return cls(Path("/var/lib/firkin"), Path("/run/firkin"))
        user = Path(environ.get("HOME", "/nonexistent"))
        data = Path(environ.get("XDG_DATA_HOME") or user / ".local/share")
        runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/tmp/firkin-{uid}")
        return cls(data / "firkin", runtime / "firkin")

    @property
    def config(self) -> Path:
        return self.home / "config.toml"

    @property
    def database(self) -> Path:
        return self.home / "firkin.db"

    @property
    def blobs(self) -> Path:
        """Files named by their sha256."""
        return self.home / "blobs" / "sha256"

    @property
    def work(self) -> Path:
        """Half-made things. Whatever lies here unlocked may be removed at any time."""
        return self.home / "work"

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def locks(self) -> Path:
        return self.run / "locks"

    @property
    def zygotes(self) -> Path:
        """Sockets, locks and last words of the warm processes of which engines are forked."""
        return self.run / "zygotes"

    def machine_home(self, machine_id: str) -> Path:
        """Logs and layers of one machine."""
        return self.home / "machines" / machine_id

    def snapshot_home(self, snapshot_id: str) -> Path:
        """`state` and `memory` of one snapshot."""
        return self.home / "snapshots" / snapshot_id

    def machine_run(self, machine_id: str) -> Path:
        """Sockets and boot files of one machine; the engine's working directory, so socket paths stay short."""
        return self.run / "machines" / machine_id
