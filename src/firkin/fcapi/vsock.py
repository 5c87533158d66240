"""/vsock: Firecracker's hybrid vsock, a unix socket on the host and AF_VSOCK in the guest."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from firkin.fcapi.wire import Wire


class Vsock(Wire, frozen=True, kw_only=True):
    """PUT /vsock. The socket is bound when the call comes."""

    guest_cid: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    uds_path: str
    vsock_id: str | UnsetType | None = UNSET  # deprecated; never given back
