"""What a function in a guest answers, as data that nobody trusts: values and errors. Nothing is unpickled here."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import msgpack

from firkin.errors import FunctionFailed, GuestError
from firkin.functions import guest


def decode(data: bytes | memoryview) -> Any:
    """The value of a VALUE frame.

    Raises:
        GuestError: it is not what an honest guest sends.
    """
    try:
        return msgpack.decode(data, ext_hook=_extension)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise GuestError(f"the guest's answer makes no sense: {error}") from None


def _extension(code: int, data: memoryview) -> Any:
    make = _EXTENSIONS.get(code)
    if make is None:
        raise ValueError(f"extension {code}")
    return make(data)


def _list(data: memoryview) -> list[Any]:
    return msgpack.decode(data, type=list[Any], ext_hook=_extension)


def _complex(data: memoryview) -> complex:
    if len(data) != 16:
        raise ValueError("a complex number of another size")
    return complex(*guest.F64.unpack(data[:8]), *guest.F64.unpack(data[8:]))


_EXTENSIONS: dict[int, Callable[[memoryview], Any]] = {
    guest.TUPLE: lambda data: tuple(_list(data)),
    guest.SET: lambda data: set(_list(data)),
    guest.FROZENSET: lambda data: frozenset(_list(data)),
    guest.BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    guest.COMPLEX: _complex,
    guest.BYTEARRAY: bytearray,
    guest.SURROGATES: lambda data: bytes(data).decode(errors="surrogatepass"),
}


class Raised(msgspec.Struct, array_like=True, frozen=True):
    """An error as the guest tells it."""

    kind: str  # the type's module and qualified name
    arguments: bytes  # `args`, encoded; None where they are not plain data
    text: str
    trace: str
    pickled: bytes | None = None


def decode_raised(data: bytes | memoryview) -> Raised:
    """The content of an ERROR frame.

    Raises:
        GuestError: as `decode`.
    """
    try:
        return msgpack.decode(data, type=Raised)
    except (msgspec.MsgspecError, ValueError) as error:
        raise GuestError(f"the guest's answer makes no sense: {error}") from None


def rebuild(raised: Raised, name: str, known: Iterable[type[Exception]] = ()) -> Exception:
    """The error to raise here: of the original type if it is a built-in or `known` one, with the guest's traceback as
    a note. Only errors: a guest cannot make us exit."""
    if raised.kind == f"{guest.NAME}.{guest.NotPlain.__qualname__}":
        return FunctionFailed(f"{name}: {clean(raised.text)}", hint=PLAIN_HINT)
    kinds = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (*_BUILTIN, *known)}
    kind = kinds.get(raised.kind)
    error = None if kind is None else _construct(kind, raised)
    return _noted(
        error or FunctionFailed(f"{name}: {clean(raised.kind).removeprefix('builtins.')}: {clean(raised.text)}"), raised
    )


PLAIN_HINT = (
    "return numbers, text, bytes, lists, tuples, sets and dicts; or, if you trust all that runs in the guest, "
    "say @firkin.function(trusted=True)"
)
_BUILTIN = [
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
]


def _construct(kind: type[Exception], raised: Raised) -> Exception | None:
    try:
        arguments = decode(raised.arguments)
        return kind(*arguments) if isinstance(arguments, tuple) else kind(raised.text)
    except Exception:  # noqa: BLE001 - a constructor of the user's, given what the guest likes
        return None


def _noted(error: Exception, raised: Raised) -> Exception:
    if isinstance(error, FunctionFailed):
        error.kind, error.trace = clean(raised.kind), clean(raised.trace)
    error.add_note("In the guest:\n" + clean(raised.trace).rstrip())
    return error


def clean(text: str) -> str:
    """Text for a terminal: control characters of the guest's are spelled out."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
