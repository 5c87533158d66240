"""What serde expects of a document, one shape for each kind of value. A shape reads its value, or says what is wrong.

`Misfit` has no place yet: serde fixes it where the text or bracket that holds the misfit ends, and so do we.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from firkin.fcapi.serde.reader import Reader
from firkin.fcapi.serde.rust import rust_float, rust_string
from firkin.fcapi.serde.scanner import FALSE, IDENTS, LIST, MAP, MAP_END, NULL, NUMBER, QUOTE, TRUE, Malformed

_A_STRING = "a string"


class Misfit(Exception):
    """A value of the wrong kind, in serde's words without a place."""


class Shape(Protocol):
    def read(self, reader: Reader) -> Any:
        """The next value. Raises: Malformed, Misfit."""


class Anything:
    """A value of any kind: an untyped one."""

    def read(self, reader: Reader) -> Any:
        byte = reader.peek_value()
        if byte == MAP:
            return self._map(reader)
        if byte == LIST:
            return List(self).read(reader)
        if byte == QUOTE:
            return reader.string()
        if byte in NUMBER:
            return reader.number()
        if byte in IDENTS:
            return reader.ident()
        raise reader.peek_error("expected value")

    def _map(self, reader: Reader) -> dict[str, Any]:
        reader.enter()
        found: dict[str, Any] = {}
        while reader.next_key(first=not found):
            key = reader.string()
            reader.colon()
            found[key] = self.read(reader)
        reader.end_map()
        return found


class Bool:
    expected = "a boolean"

    def read(self, reader: Reader) -> bool:
        if reader.peek_value() in (TRUE, FALSE):
            return reader.ident() is True
        raise wrong_kind(reader, self.expected)


class Integer:
    """An unsigned integer; `name` is its Rust type."""

    def __init__(self, name: str, maximum: int) -> None:
        self.expected = name
        self._maximum = maximum

    def read(self, reader: Reader) -> int:
        if reader.peek_value() not in NUMBER:
            raise wrong_kind(reader, self.expected)
        value = reader.number()
        if isinstance(value, float):
            raise reader.error(f"invalid type: floating point `{rust_float(value)}`, expected {self.expected}")
        if not 0 <= value <= self._maximum:
            raise reader.error(f"invalid value: integer `{value}`, expected {self.expected}")
        return value


class Text:
    """A string. `parse` may change or refuse it with a ValueError, as a Rust type with a syntax of its own does.

    Where such a type also has an expectation of its own, its complaint has a place already: the end of the string.
    """

    def __init__(self, expected: str = _A_STRING, parse: Callable[[str], str] | None = None) -> None:
        self.expected = expected
        self._parse = parse

    def read(self, reader: Reader) -> str:
        if reader.peek_value() != QUOTE:
            raise wrong_kind(reader, self.expected)
        text = reader.string()
        if self._parse is None:
            return text
        try:
            return self._parse(text)
        except ValueError as error:
            if self.expected == _A_STRING:
                raise Misfit(str(error)) from error
            raise reader.error(str(error)) from error


class Choice:
    """One of a few words; serde also takes `{"word": null}`."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def read(self, reader: Reader) -> Any:
        byte = reader.peek_value()
        if byte == MAP:
            return self._in_map(reader)
        if byte != QUOTE:
            raise reader.peek_error("expected value")
        return self._word(reader)

    def _word(self, reader: Reader) -> Any:
        word = reader.string()
        if word not in self._members:
            raise reader.error(f"unknown variant `{word}`, {expected_names(tuple(self._members), 'variants')}")
        return self._members[word]

    def _in_map(self, reader: Reader) -> Any:
        reader.enter()
        if (byte := reader.peek()) != QUOTE:
            if reader.at_end:
                raise reader.peek_error("EOF while parsing an object")
            raise reader.peek_error("expected value" if byte == MAP_END else "key must be a string")
        value = self._word(reader)
        reader.colon()
        if reader.peek_value() != NULL:
            raise wrong_kind(reader, "unit")
        reader.ident()
        if reader.peek() != MAP_END:
            raise reader.error("EOF while parsing an object" if reader.at_end else "expected value")
        reader.index += 1
        reader.depth -= 1
        return value


class Option:
    """A value or null, which is given as `nothing`."""

    def __init__(self, inner: Shape, nothing: Any) -> None:
        self._inner = inner
        self.nothing = nothing

    def read(self, reader: Reader) -> Any:
        if reader.peek() == NULL:
            reader.ident()
            return self.nothing
        return self._inner.read(reader)


class List:
    expected = "a sequence"

    def __init__(self, item: Shape) -> None:
        self._item = item

    def read(self, reader: Reader) -> tuple[Any, ...]:
        if reader.peek_value() != LIST:
            raise wrong_kind(reader, self.expected)
        reader.enter()
        found: list[Any] = []
        try:
            while reader.next_item(first=not found):
                found.append(self._item.read(reader))
        except Misfit as misfit:
            raise placed_after(reader.end_list, reader, misfit) from misfit
        reader.end_list()
        return tuple(found)


class Untagged:
    """A value of the first shape that fits; of the others' complaints nothing is heard."""

    def __init__(self, name: str, shapes: Sequence[Shape]) -> None:
        self._name = name
        self._shapes = shapes

    def read(self, reader: Reader) -> Any:
        start = reader.index
        Anything().read(reader)
        document = reader.data[start : reader.index]
        for shape in self._shapes:
            try:
                return shape.read(Reader(document))
            except (Malformed, Misfit):
                continue
        raise Misfit(f"data did not match any variant of untagged enum {self._name}")


def wrong_kind(reader: Reader, expected: str) -> Malformed:
    """What serde says of a value of another kind than `expected`. Raises: Malformed, where it is not even a value."""
    return reader.error(f"invalid type: {_found(reader)}, expected {expected}")


def _found(reader: Reader) -> str:
    byte = reader.peek()
    if byte in (LIST, MAP):
        return "sequence" if byte == LIST else "map"
    if byte == QUOTE:
        return f"string {rust_string(reader.string())}"
    if byte in NUMBER:
        number = reader.number()
        return f"integer `{number}`" if isinstance(number, int) else f"floating point `{rust_float(number)}`"
    if byte in IDENTS:
        word = reader.ident()
        return "null" if word is None else f"boolean `{str(word).lower()}`"
    raise reader.peek_error("expected value")


def placed_after(end: Callable[[], None], reader: Reader, misfit: Misfit) -> Malformed:
    """The misfit at the end of what holds it: serde takes the closing bracket first, if it is there."""
    with contextlib.suppress(Malformed):  # the misfit came first, but the place has moved
        end()
    return reader.error(str(misfit))


def expected_names(names: Sequence[str], kind: str) -> str:
    quoted = [f"`{name}`" for name in names]
    match quoted:
        case []:
            return f"there are no {kind}"
        case [only]:
            return f"expected {only}"
        case [one, other]:
            return f"expected {one} or {other}"
    return "expected one of " + ", ".join(quoted)
