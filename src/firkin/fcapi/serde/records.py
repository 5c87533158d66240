"""From our types to shapes: a Struct becomes a `Record`, its annotations the shapes of its fields. Built once each."""

from __future__ import annotations

from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, UNSET, Meta, Raw, UnsetType

from firkin.fcapi.serde.reader import Reader
from firkin.fcapi.serde.scanner import LIST, MAP
from firkin.fcapi.serde.shapes import (
    Anything,
    Bool,
    Choice,
    Integer,
    List,
    Misfit,
    Option,
    Shape,
    Text,
    Untagged,
    expected_names,
    placed_after,
    wrong_kind,
)

_INTEGERS = {2**8 - 1: "u8", 2**16 - 1: "u16", 2**32 - 1: "u32"}
_MAX_U64 = 2**64 - 1


class _Field(NamedTuple):
    name: str
    wire_name: str
    shape: Shape
    required: bool
    in_list: bool  # a list must have it: serde fills in for what comes by name only, unless a default is stated


class Record:
    """A struct: an object, or its fields in order as a list."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind
        self._fields = _fields(kind)
        self._by_name = {field.wire_name: field for field in self._fields}
        self._strict = kind.__struct_config__.forbid_unknown_fields
        self.expected = f"struct {getattr(kind, 'rust', kind.__name__)}"

    def read(self, reader: Reader) -> Any:
        byte = reader.peek_value()
        if byte not in (LIST, MAP):
            raise wrong_kind(reader, self.expected)
        reader.enter()
        visit, end = (self._visit_map, reader.end_map) if byte == MAP else (self._visit_list, reader.end_list)
        try:
            values = visit(reader)
        except Misfit as misfit:
            raise placed_after(end, reader, misfit) from misfit
        end()
        return self._kind(**{name: value for name, value in values.items() if value is not UNSET})

    def _visit_map(self, reader: Reader) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first = True
        while reader.next_key(first=first):
            first = False
            self._member(reader, values)
        for field in self._fields:
            if field.required and field.name not in values:
                raise Misfit(f"missing field `{field.wire_name}`")
        return values

    def _member(self, reader: Reader, values: dict[str, Any]) -> None:
        key = reader.string()
        field = self._by_name.get(key)
        if field is None:
            if self._strict:
                raise Misfit(f"unknown field `{key}`, {expected_names(tuple(self._by_name), 'fields')}")
            reader.colon()
            reader.skip_value()
            return
        if field.name in values:
            raise Misfit(f"duplicate field `{key}`")
        reader.colon()
        values[field.name] = field.shape.read(reader)

    def _visit_list(self, reader: Reader) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for count, field in enumerate(self._fields):
            if reader.next_item(first=count == 0):
                values[field.name] = field.shape.read(reader)
            elif field.in_list:
                total = len(self._fields)
                elements = f"{total} element{'s' if total != 1 else ''}"
                raise Misfit(f"invalid length {count}, expected {self.expected} with {elements}")
        return values


@cache
def shape_of(kind: Any) -> Shape:
    """The shape of a type: of a Struct, or of an annotation in one."""
    if kind in (Raw, Any, object):
        return Anything()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return Record(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return Choice({str(member.value): member for member in kind})
    return _plain(kind)


def _plain(kind: Any) -> Shape:
    origin = get_origin(kind)
    if origin is Annotated:
        return _annotated(kind)
    if origin in (Union, UnionType):
        return _union(get_args(kind))
    if origin is tuple:
        return List(shape_of(get_args(kind)[0]))
    if kind is bool:
        return Bool()
    if kind is int:
        return Integer("u64", _MAX_U64)
    if kind is str:
        return Text()
    raise TypeError(f"no JSON shape for {kind!r}")


def _annotated(kind: Any) -> Shape:
    base, *metas = get_args(kind)
    meta = next(meta for meta in metas if isinstance(meta, Meta))
    extra = meta.extra or {}
    if extra.get("null"):
        return Option(shape_of(base), UNSET)
    if get_origin(base) in (Union, UnionType):
        return Untagged(extra["rust"], [shape_of(member) for member in get_args(base)])
    if base is int:
        maximum = _MAX_U64 if meta.le is None else int(meta.le)
        return Integer(extra.get("rust") or _INTEGERS.get(maximum, "u64"), maximum)
    return Text(extra.get("expected", "a string"), extra.get("parse"))


def _union(members: tuple[Any, ...]) -> Shape:
    inner = [member for member in members if member not in (NoneType, UnsetType)]
    if len(inner) != 1:
        raise TypeError(f"a union of {members!r} needs a name")
    return Option(shape_of(inner[0]), None if NoneType in members else UNSET)


def _fields(kind: type[Any]) -> tuple[_Field, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(_field(field, hints[field.name]) for field in msgspec.structs.fields(kind))


def _field(field: msgspec.structs.FieldInfo, hint: Any) -> _Field:
    shape = shape_of(hint)
    required = field.default is NODEFAULT and field.default_factory is NODEFAULT
    if not isinstance(shape, Option):
        return _Field(field.name, field.encode_name, shape, required, required)
    return _Field(field.name, field.encode_name, shape, False, shape.nothing is None)
