"""The base of every body on the wire: frozen, keyword-only, unknown fields refused (serde's deny_unknown_fields)."""

from __future__ import annotations

import msgspec


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request or reply body. `UNSET` means absent, which is not the same as null."""
