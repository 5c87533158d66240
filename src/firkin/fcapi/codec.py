"""JSON ↔ types: the only place that encodes and decodes bodies, and that words a bad one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar, cast

import msgspec

from firkin.fcapi.serde.reader import MAX_DEPTH, Reader
from firkin.fcapi.serde.records import shape_of
from firkin.fcapi.serde.scanner import Malformed
from firkin.fcapi.serde.shapes import Misfit

__all__ = ["Malformed", "decode", "encode"]

T = TypeVar("T")


def encode(body: object) -> bytes:
    """Compact JSON, fields in the order they are declared."""
    return msgspec.json.encode(body)


def decode(body: bytes, kind: type[T]) -> T:
    """Read `body` as a `kind`; `msgspec.Raw` is any JSON and is given back as it came.

    Raises:
        Malformed: in serde_json's words, with line and column.
    """
    if kind is msgspec.Raw:
        if not _is_shallow_json(body):
            _read(body, kind)
        return cast("T", msgspec.Raw(body))
    value = _read(body, kind)
    # Firecracker judges the whole after serde is done with it; such a complaint has no place.
    if (complaint := getattr(value, "complaint", None)) is not None and (text := complaint()) is not None:
        raise Malformed(text)
    return value


def _read(body: bytes, kind: type[T]) -> T:
    reader = Reader(body)
    try:
        value = shape_of(cast("Hashable", kind)).read(reader)
    except Misfit as misfit:
        raise Malformed(str(misfit)) from misfit
    reader.end()
    return cast("T", value)


def _is_shallow_json(body: bytes) -> bool:
    """Whether a fast parser takes it and it is not too deep. False says nothing: serde has the last word."""
    try:
        level = [msgspec.json.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    for _ in range(MAX_DEPTH + 1):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        if not inner:
            return True
        level = [each for values in inner for each in values]
    return False
