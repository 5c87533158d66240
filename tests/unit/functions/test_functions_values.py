"""Values of plain data cross unchanged; everything else is refused, on either side."""

from __future__ import annotations

import collections
import enum
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import FunctionFailed, GuestError
from firkin.functions import guest, values

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
    | st.text(st.characters()) | st.binary()
)  # fmt: skip
FROZEN = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5)
PLAIN = st.recursive(
    FROZEN | st.binary().map(bytearray),
    lambda inner: st.lists(inner) | st.dictionaries(FROZEN, inner) | st.sets(FROZEN) | st.tuples(inner),
    max_leaves=20,
)


def types(value: Any) -> Any:
    """The value with the type of each of its parts."""
    if isinstance(value, dict):
        return [(types(key), types(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [types(item) for item in value]
    return type(value), value


@given(PLAIN)
def test_plain_data_comes_back_with_the_same_types(value: Any) -> None:
    back = values.decode(guest.encode(value))
    assert back == value
    assert types(back) == types(value)


def test_numbers_without_a_value_cross_too() -> None:
    assert math.isnan(values.decode(guest.encode(math.nan)))
    assert math.copysign(1, values.decode(guest.encode(-0.0))) == -1


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, object()]}, "result['a'][1] is a object"),
        (Colour.RED, "Colour"),
        ([Point(1, 2)], "result[0] is a"),
        (collections.OrderedDict(), "collections.OrderedDict"),
        (print, "builtin_function_or_method"),
    ],
)
def test_what_would_change_on_its_way_is_refused_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(guest.NotPlain) as refusal:
        guest.encode(value)
    assert said in str(refusal.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="contains itself"):
        guest.encode(value)


def extension(code: int, data: bytes) -> bytes:
    return b"\xc9" + struct.pack(">IB", len(data), code) + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\x81\x01\x02\x03",
        b"\x91" * 100_000,
        b"\xa2\xff\xfe",
        b"\xc0\xc0",
        extension(99, b""),
        extension(guest.TUPLE, b"\x01"),
        extension(guest.SET, guest.encode([[]])),
        extension(guest.COMPLEX, b"1"),
        extension(guest.SURROGATES, b"\xff"),
    ],
)
def test_bytes_that_no_honest_guest_sends_are_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(GuestError, match="makes no sense"):
        values.decode(data)


@given(st.binary())
def test_any_bytes_are_a_value_or_an_error_of_ours(data: bytes) -> None:
    for decode in (values.decode, values.decode_raised):
        try:
            decode(data)
        except GuestError:
            continue


def raised(kind: str, arguments: Any = (), text: str = "text", trace: str = "trace") -> values.Raised:
    return values.Raised(kind, guest.encode(arguments), text, trace)


class Unfit(Exception):
    """One of the user's."""


def test_an_error_comes_back_as_itself_with_the_guests_traceback() -> None:
    error = values.rebuild(raised("builtins.KeyError", ("k",), trace='File "x.py", line 1'), "f")
    assert type(error) is KeyError
    assert error.args == ("k",)
    assert error.__notes__ == ['In the guest:\nFile "x.py", line 1']


def test_a_type_that_the_user_named_comes_back_and_others_do_not() -> None:
    kind = f"{Unfit.__module__}.{Unfit.__qualname__}"
    assert type(values.rebuild(raised(kind), "f", (Unfit,))) is Unfit
    other = values.rebuild(raised(kind, text="so"), "f")
    assert isinstance(other, FunctionFailed)
    assert (other.kind, other.trace) == (kind, "trace")
    assert "Unfit: so" in str(other)


@pytest.mark.parametrize(
    "kind",
    ["builtins.SystemExit", "builtins.KeyboardInterrupt", "builtins.GeneratorExit", "builtins.eval", "os.system", "x"],
)
def test_a_guest_can_raise_nothing_that_is_no_error(kind: str) -> None:
    assert type(values.rebuild(raised(kind, ("exit()",)), "f")) is FunctionFailed


def test_arguments_that_do_not_fit_are_no_crash() -> None:
    assert type(values.rebuild(raised("builtins.UnicodeDecodeError", (1,)), "f")) is FunctionFailed
    assert type(values.rebuild(values.Raised("builtins.KeyError", b"\xc1", "", ""), "f")) is FunctionFailed


def test_control_characters_do_not_reach_a_terminal() -> None:
    error = values.rebuild(raised("x.Y", text="\x1b[2J", trace="\x1b]0;owned\x07"), "f")
    assert "\x1b" not in str(error) + "".join(error.__notes__)
