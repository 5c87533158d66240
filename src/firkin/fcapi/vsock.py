"""/vsock: Firecracker's hybrid vsock, a unix socket on the host and AF_VSOCK in the guest."""

from __future__ import annotations

from typing import ClassVar

from msgspec import UNSET, UnsetType

from firkin.fcapi.wire import U32, Wire


class Vsock(Wire, frozen=True, kw_only=True):
    """PUT /vsock. The socket is bound when the call comes."""

    rust: ClassVar[str] = "VsockDeviceConfig"

    vsock_id: str | UnsetType | None = UNSET  # deprecated; never given back
    guest_cid: U32
    uds_path: str
