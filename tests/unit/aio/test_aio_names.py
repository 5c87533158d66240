"""The asyncio side has the names and parameters of the blocking one."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import firkin
from firkin import aio

DOCS = Path(__file__).parents[3] / "docs"
TWINS = ("Machine", "Process", "GuestFs", "Watch", "Function", "Firkin", "Snapshot", "Pool")
# What a loop has no use for: a connection for threads, the plumbing between a thread and a process, an open store.
BLOCKING_ONLY = {
    "Machine": {"agent", "reach", "expect_awake", "on_rewind", "speaks", "part", "keep_time"},
    "Process": {"put"},
    "Function": {"pack", "carry_out"},
    "Firkin": {"context"},
}


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers_static(kind) if not name.startswith("_")}


def parameters(call: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(call).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found if parameter.name != "self"]


def test_both_sides_have_the_same_names() -> None:
    assert aio.__all__ == firkin.__all__
    for name in firkin.__all__:
        assert getattr(aio, name).__doc__
        assert getattr(firkin, name).__doc__
    assert {name for name in aio.__all__ if getattr(aio, name) is not getattr(firkin, name)} == {
        *TWINS, "run", "get", "function"
    }  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_the_methods_and_parameters_of_the_original(name: str) -> None:
    ours, theirs = public(getattr(aio, name)), public(getattr(firkin, name))
    assert set(ours) - {"sync"} == set(theirs) - BLOCKING_ONLY.get(name, set())
    for method in set(ours) & set(theirs):
        if callable(theirs[method]):
            assert parameters(ours[method]) == parameters(theirs[method]), method
            assert ours[method].__doc__, method
        else:
            assert isinstance(ours[method], property), method


@pytest.mark.parametrize("name", ["run", "get", "function"])
def test_a_function_has_the_parameters_of_the_original(name: str) -> None:
    assert parameters(getattr(aio, name)) == parameters(getattr(firkin, name))


def test_the_document_tells_of_every_public_name_in_our_order() -> None:
    text = (DOCS / "python.md").read_text()
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [name for name in rows if name in firkin.__all__] == firkin.__all__


def test_a_name_that_does_not_exist_is_told_as_python_tells_it() -> None:
    for module in (firkin, aio):
        with pytest.raises(AttributeError, match="nosuch"):
            _ = module.nosuch
        assert set(module.__all__) <= set(dir(module))


def test_importing_firkin_loads_nothing_heavy() -> None:
    heavy = {"asyncio", "msgspec", "sqlite3", "socket", "cloudpickle", "rich", "click"}
    script = "import sys, firkin; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert heavy & set(done.stdout.split()) == set()


def test_a_file_of_ours_says_that_types_are_given() -> None:
    assert (Path(firkin.__file__).parent / "py.typed").exists()
