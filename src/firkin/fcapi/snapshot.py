"""/snapshot/create and /snapshot/load: a machine on disk, and back."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from firkin.fcapi.wire import PathText, Wire


class SnapshotType(StrEnum):
    """`Full` holds all memory, `Diff` what changed since the last snapshot."""

    DIFF = "Diff"
    FULL = "Full"


class SnapshotCreate(Wire, frozen=True, kw_only=True):
    """PUT /snapshot/create."""

    rust: ClassVar[str] = "CreateSnapshotParams"

    snapshot_type: SnapshotType = SnapshotType.FULL
    snapshot_path: PathText
    mem_file_path: PathText


class MemBackendType(StrEnum):
    """Who provides the pages of guest memory: a file, or a page-fault handler behind a unix socket."""

    FILE = "File"
    UFFD = "Uffd"


class MemBackend(Wire, frozen=True, kw_only=True):
    rust: ClassVar[str] = "MemBackendConfig"

    backend_path: PathText
    backend_type: MemBackendType


class NetworkOverride(msgspec.Struct, frozen=True, kw_only=True):
    """Another tap for one interface of the snapshot; unknown fields are ignored, as upstream."""

    iface_id: str
    host_dev_name: str


class VsockOverride(msgspec.Struct, frozen=True, kw_only=True):
    """Another path for the vsock's unix socket; unknown fields are ignored, as upstream."""

    uds_path: str


class SnapshotLoad(Wire, frozen=True, kw_only=True):
    """PUT /snapshot/load. Exactly one of `mem_backend` and the deprecated `mem_file_path` says where memory is."""

    rust: ClassVar[str] = "LoadSnapshotConfig"

    snapshot_path: PathText
    mem_file_path: PathText | None = None
    mem_backend: MemBackend | None = None
    enable_diff_snapshots: bool = False  # deprecated name of track_dirty_pages
    track_dirty_pages: bool = False
    resume_vm: bool = False
    network_overrides: tuple[NetworkOverride, ...] = ()
    vsock_override: VsockOverride | None = None
    clock_realtime: bool = False

    def complaint(self) -> str | None:
        """What is wrong with the whole, said without a place in the document."""
        if self.mem_backend is not None and self.mem_file_path is not None:
            return "too many fields: either `mem_backend` or `mem_file_path` exclusively is required"
        if self.mem_backend is None and self.mem_file_path is None:
            return "missing field: either `mem_backend` or `mem_file_path` is required"
        return None
