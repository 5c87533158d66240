"""What bodies on the wire are made of: their base, and the plain types of their fields.

Upstream's own names and rules that Python's types cannot say stand here and on the types, as data: a class's `rust` is
the name that its errors show (the class's own name where there is none), a `Meta`'s `extra` may hold

- `rust`: the name of the integer type, or of the untagged enum that a union is,
- `parse`: what reads a text with a syntax of its own; its ValueError is the client's error,
- `expected`: what is said to be expected in place of `a string`,
- `null`: true where upstream takes null for absence although our type has another default."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

U8 = Annotated[int, Meta(ge=0, le=2**8 - 1)]
U16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Meta(ge=0)]  # msgspec cannot state a bound of 2**64 - 1
USize = Annotated[int, Meta(ge=0, extra={"rust": "usize"})]
PathText = Annotated[str, Meta(extra={"expected": "path string"})]


class Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request or reply body. `UNSET` means absent, which is not the same as null.

    Every subclass says `kw_only=True` itself, since msgspec does not inherit it, and `frozen=True` for type checkers.
    """
