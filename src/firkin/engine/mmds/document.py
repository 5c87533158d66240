"""An untyped JSON document as serde_json keeps it: read, printed, patched and pointed into. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from firkin.fcapi import codec

MAX_DEPTH = 127
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1


class NotFound(LookupError):
    """The pointer leads nowhere."""


def parse(text: bytes) -> Any:
    """Read any JSON value. Raises: codec.Malformed."""
    return read(codec.decode(text, msgspec.Raw))


def read(text: msgspec.Raw) -> Any:
    """The value of what is JSON already; of equal keys the last counts.

    Raises:
        codec.Malformed: it is nested deeper than 127, or has a number that no f64 can hold.
    """
    try:
        return _as_serde(msgspec.json.decode(text), MAX_DEPTH)
    except (OverflowError, msgspec.DecodeError) as error:
        raise codec.Malformed(f"number out of range at line 1 column {len(bytes(text))}") from error
    except RecursionError as error:
        raise codec.Malformed(f"recursion limit exceeded at line 1 column {MAX_DEPTH + 1}") from error


def render(value: Any) -> bytes:
    """Compact, keys sorted."""
    return msgspec.json.encode(value, order="deterministic")


def merged(target: Any, patch: Any) -> Any:
    """`target` after a JSON merge patch (RFC 7396); neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def point(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to.

    Raises:
        NotFound: nothing is there.
    """
    if not pointer:
        return value
    if not pointer.startswith("/"):
        raise NotFound(pointer)
    for token in pointer[1:].split("/"):
        value = _step(value, token.replace("~1", "/").replace("~0", "~"))
    return value


def _step(value: Any, token: str) -> Any:
    if isinstance(value, dict) and token in value:
        return value[token]
    if isinstance(value, list) and _is_index(token) and int(token) < len(value):
        return value[int(token)]
    raise NotFound(token)


def _is_index(token: str) -> bool:
    # Longer than any list's length needs no look; a leading zero is no index.
    return token.isascii() and token.isdigit() and len(token) < 20 and (token[0] != "0" or token == "0")


def _as_serde(value: Any, depth: int) -> Any:
    """Integers beyond 64 bits become floats. Raises: RecursionError, OverflowError."""
    if isinstance(value, int) and not _MIN_INT <= value <= _MAX_INT:
        return float(value)
    if not isinstance(value, (dict, list)):
        return value
    if not depth:
        raise RecursionError
    if isinstance(value, list):
        return [_as_serde(item, depth - 1) for item in value]
    return {key: _as_serde(item, depth - 1) for key, item in value.items()}
