"""What the host sends to a guest's Python: our code there, cloudpickle's, the function, the arguments. Pure."""

from __future__ import annotations

import importlib
import inspect
import io
import marshal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from firkin.errors import HostError, UsageError
from firkin.functions import guest

PYTHON = sys.implementation.cache_tag or ""  # such as cpython-311: whose code this Python's pickles hold
IMAGES = {"cpython-311": "python", "cpython-313": "python3.13"}  # those that firkin can build, by the Python in them
MODULES = ("cloudpickle.cloudpickle", "cloudpickle")  # the package imports its part
# Says who it is, then runs what it is sent.
BOOT = """import marshal, os, sys
os.write(1, (sys.implementation.cache_tag + "\\n").encode())
def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data)) or sys.exit()
        data += piece
    return data
module = {"__name__": sys.argv[1]}
exec(marshal.loads(take(int.from_bytes(take(4), "little"))), module)
module["main"]()
"""
COMMAND = ("python3", "-c", BOOT, guest.NAME)

_registering = threading.Lock()


def frame(kind: int, payload: bytes) -> bytes:
    """A frame for the guest."""
    return guest.HEADER.pack(kind, len(payload)) + payload


@lru_cache
def luggage() -> bytes:
    """What each new Python in a guest is sent first: our code and cloudpickle, compiled for a Python as this one."""
    ours = marshal.dumps(compile(Path(guest.__file__).read_bytes(), f"<{guest.NAME}>", "exec"))
    modules = [(name, importlib.import_module(name)) for name in MODULES]
    theirs = [(name, hasattr(module, "__path__"), _compiled(module)) for name, module in modules]
    return len(ours).to_bytes(4, "little") + ours + frame(guest.MODULE, marshal.dumps(theirs))


def _compiled(module: ModuleType) -> Any:
    file = Path(module.__file__ or "")
    return compile(file.read_bytes(), str(file), "exec")


def pack_function(function: Callable[..., Any], *, trusted: bool) -> bytes:
    """The FUNCTION frame.

    Raises:
        UsageError: something that it refers to cannot be pickled.
    """
    try:
        lines, line = inspect.getsourcelines(function)
        source = (function.__code__.co_filename, line, "".join(lines))
    except (OSError, TypeError):  # typed at a prompt, or no Python function
        source = (guest.DYNAMIC, 1, "")
    return frame(guest.FUNCTION, marshal.dumps((pickle(function, function), trusted, *source)))


def pack_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The CALL frame.

    Raises:
        UsageError: an argument cannot be pickled.
    """
    return frame(guest.CALL, pickle((args, kwargs), function))


def pickle(value: object, function: Callable[..., Any]) -> bytes:
    """`value` for the guest. The module of `function` is not there, so what belongs to it travels too."""
    from cloudpickle import Pickler

    from firkin.functions.function import Function

    class Packer(Pickler):  # type: ignore[misc] # cloudpickle has no types
        def persistent_id(self, item: object) -> object:
            return item.local if isinstance(item, Function) else None

    file = io.BytesIO()
    try:
        with _by_value(function.__module__):
            Packer(file).dump(value)
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise UsageError(
            f"{name}: cannot be sent to the guest: {error}",
            hint="pass plain data, and open files, sockets and locks within the function",
        ) from error
    return file.getvalue()


@contextmanager
def _by_value(name: str) -> Iterator[None]:
    """Within this scope the module's functions and classes are pickled whole, not by name."""
    import cloudpickle

    module = sys.modules.get(name)
    if module is None or name == "__main__":
        yield
        return
    with _registering:
        ours = name not in cloudpickle.list_registry_pickle_by_value()
        if ours:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            if ours:
                cloudpickle.unregister_pickle_by_value(module)


def check_python(said: str, image: str) -> None:
    """Refuse a guest whose Python does not read our pickles.

    Raises:
        HostError: it is another version.
    """
    if said != PYTHON:
        built = " or ".join(readable(tag) for tag in IMAGES)
        others = f"run it with Python {built}, for which firkin has images, or give image= one with {readable(PYTHON)}"
        raise HostError(
            f"image {image!r} has Python {readable(said)}, this program runs {readable(PYTHON)}: code cannot cross",
            hint=f"image={IMAGES[PYTHON]!r}" if PYTHON in IMAGES else others,
        )


def readable(tag: str) -> str:
    """cpython-311 → 3.11; anything else as it is."""
    name, _, version = tag.partition("-")
    return f"{version[0]}.{version[1:]}" if name == "cpython" and len(version) > 1 else tag
