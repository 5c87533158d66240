"""The base of every body on the wire: frozen, unknown fields refused (serde's deny_unknown_fields)."""

from __future__ import annotations

import msgspec


class Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request or reply body. `UNSET` means absent, which is not the same as null.

    Every subclass says `kw_only=True` itself, since msgspec does not inherit it, and `frozen=True` for type checkers.
    """
