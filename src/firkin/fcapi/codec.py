"""JSON ↔ types: the only place that encodes and decodes bodies, and that words a bad one."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")

# msgspec's words for the two mistakes that every client meets first.
_MISSING = "Object missing required field `"
_UNKNOWN = "Object contains unknown field `"


class Malformed(ValueError):
    """The body is not JSON, or not of the shape asked for. Its text is the parser's own."""


def encode(body: object) -> bytes:
    """Compact JSON, fields in the order they are declared."""
    return msgspec.json.encode(body)


def decode(body: bytes, kind: type[T]) -> T:
    """Read `body` as a `kind`.

    Raises:
        Malformed: in serde_json's words where they are known, else in msgspec's.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(_serde_text(str(error), body, kind)) from error
    except RecursionError as error:
        raise Malformed("recursion limit exceeded at line 1 column 128") from error


def _serde_text(text: str, body: bytes, kind: type) -> str:
    if text.startswith(_MISSING) and " - at " not in text:
        # serde notices at the closing brace that a field never came.
        return f"missing field `{text.split('`')[1]}` at line 1 column {len(body.rstrip())}"
    if text.startswith(_UNKNOWN) and " - at " not in text:
        name = text.split("`")[1]
        known = ", ".join(f"`{field.encode_name}`" for field in msgspec.structs.fields(kind))
        column = body.find(b'"%b"' % name.encode()) + len(name.encode()) + 2
        return f"unknown field `{name}`, expected one of {known} at line 1 column {column}"
    return text
