"""/snapshot/create and /snapshot/load: a machine on disk, and back."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from firkin.fcapi.wire import Wire


class SnapshotType(StrEnum):
    """`Full` holds all memory, `Diff` what changed since the last snapshot."""

    FULL = "Full"
    DIFF = "Diff"


class SnapshotCreate(Wire, frozen=True, kw_only=True):
    """PUT /snapshot/create."""

    snapshot_type: SnapshotType = SnapshotType.FULL
    snapshot_path: str
    mem_file_path: str


class MemBackendType(StrEnum):
    """Who provides the pages of guest memory: a file, or a page-fault handler behind a unix socket."""

    FILE = "File"
    UFFD = "Uffd"


class MemBackend(Wire, frozen=True, kw_only=True):
    backend_path: str
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

    snapshot_path: str
    mem_file_path: str | None = None
    mem_backend: MemBackend | None = None
    enable_diff_snapshots: bool = False  # deprecated name of track_dirty_pages
    track_dirty_pages: bool = False
    resume_vm: bool = False
    network_overrides: tuple[NetworkOverride, ...] = ()
    vsock_override: VsockOverride | None = None
    clock_realtime: bool = False
