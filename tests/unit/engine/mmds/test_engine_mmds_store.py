"""The document and its store: what serde_json would keep and print, patched and looked up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.engine.faults import Fault, TooLarge
from firkin.engine.mmds import document
from firkin.engine.mmds.document import NotFound
from firkin.engine.mmds.store import Store, UnsupportedType
from firkin.fcapi.codec import Malformed

DATA: Any = {
    "latest": {"meta-data": {"ami-id": "ami-1", "é": "ü"}, "user-data": "x"},
    "age": 43,
    "phones": ["+401234567", {"home": True}],
    "a/b": {"~c": "slash"},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def store(data: Any = DATA, limit: int = 51200) -> Store:
    made = Store(limit)
    made.put(data)
    return made


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (b'{"b": 1, "a": {"d": [ ], "c": null}}', b'{"a":{"c":null,"d":[]},"b":1}'),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b'"\\u00e9\\u0001\\/"', '"é\\u0001/"'.encode()),
        (b"1.0", b"1.0"),
        (b"1e2", b"100.0"),
        (b"1e16", b"1e16"),
        (b"0.00001", b"0.00001"),
        (b"1e-7", b"1e-7"),
        (b"18446744073709551615", b"18446744073709551615"),
        (b"18446744073709551616", b"1.8446744073709552e19"),
        (b"-9223372036854775809", b"-9.223372036854776e18"),
        (b"true", b"true"),
        (b"null", b"null"),
    ],
)
def test_documents_are_printed_as_serde_json_prints_them(text: bytes, printed: bytes) -> None:
    assert document.render(document.parse(text)) == printed


@pytest.mark.parametrize("text", [b"", b"{", b"nul", b"[1,]", b"1e999", b"9" * 400, b"9" * 5000, b"[" * 5000])
def test_what_is_no_document_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        document.parse(text)


def test_nesting_ends_where_serde_json_ends_it() -> None:
    assert document.render(document.parse(b"[" * 127 + b"]" * 127)) == b"[" * 127 + b"]" * 127
    with pytest.raises(Malformed, match="recursion limit exceeded at line 1 column 128"):
        document.parse(b"[" * 128 + b"]" * 128)


@pytest.mark.parametrize(
    ("target", "patch", "result"),  # the examples of RFC 7396, appendix A
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_its_rfc_shows(target: Any, patch: Any, result: Any) -> None:
    before = json.dumps(target)
    assert document.merged(target, patch) == result
    assert json.dumps(target) == before


@given(JSON, JSON)
def test_patching_twice_changes_nothing_more(target: Any, patch: Any) -> None:
    once = document.merged(target, patch)
    assert document.merged(once, patch) == once


@given(JSON)
def test_what_is_printed_reads_back_the_same(value: Any) -> None:
    assert document.parse(document.render(value)) == value


def test_a_store_that_was_never_filled_shows_an_empty_object_and_takes_no_patch() -> None:
    empty = Store(100)
    assert empty.describe() == b"{}"
    with pytest.raises(Fault, match=r"^MMDS error: The MMDS data store is not initialized\.$"):
        empty.patch({"a": 1})


def test_a_store_filled_with_null_is_filled() -> None:
    filled = store(None)
    assert filled.describe() == b"{}"
    filled.patch({"a": 1})
    assert filled.describe() == b'{"a":1}'


def test_what_does_not_fit_changes_nothing() -> None:
    small = store({"a": "12345"}, limit=13)
    words = r"^MMDS limit exceeded error: The MMDS patch request doesn't fit\.$"
    with pytest.raises(TooLarge, match=words):
        small.put({"a": "123456"})
    with pytest.raises(TooLarge, match=words):
        small.patch({"b": 1})
    assert small.describe() == b'{"a":"12345"}'


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/age", b"43"),
        ("/latest/meta-data/ami-id", b'"ami-1"'),
        ("/latest/meta-data/", b'{"ami-id":"ami-1","\xc3\xa9":"\xc3\xbc"}'),
        ("/phones/0", b'"+401234567"'),
        ("/phones/1/home/", b"true"),
        ("/a~1b/~0c", b'"slash"'),
    ],
)
def test_paths_are_json_pointers(path: str, found: bytes) -> None:
    assert store().json(path) == found


@pytest.mark.parametrize("path", ["/nothing", "/age/x", "/phones/2", "/phones/00", "/phones/+1", "/phones/-1", "x"])
def test_pointers_to_nothing_find_nothing(path: str) -> None:
    with pytest.raises(NotFound):
        store().json(path)


def test_as_text_objects_are_lists_of_their_keys() -> None:
    assert store().text("/") == b"a/b/\nage\nlatest/\nphones"
    assert store().text("/latest") == b"meta-data/\nuser-data"
    assert store().text("/latest/user-data") == b"x"
    assert store({}).text("/") == b""


@pytest.mark.parametrize("path", ["/age", "/phones", "/phones/1/home"])
def test_as_text_only_objects_and_strings_can_be_shown(path: str) -> None:
    with pytest.raises(UnsupportedType):
        store().text(path)


@given(JSON, st.text(max_size=20))
def test_any_path_finds_something_or_nothing(value: Any, path: str) -> None:
    filled = store(value, limit=10**6)
    try:
        filled.json(path)
        filled.text(path)
    except (NotFound, UnsupportedType):
        pass
