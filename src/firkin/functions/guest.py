"""The guest's side of `@firkin.function`: this file's code is sent to the guest's Python, which runs `main`.

Standard library only. It reads frames from stdin and writes frames to stdout: a byte of kind, a u32 length, so many
bytes. What the function and its children print goes into frames too, so it cannot break into an answer.
"""

from __future__ import annotations

import io
import marshal
import os
import pickle
import select
import struct
import sys
import threading
from collections.abc import Callable
from types import CodeType, ModuleType, TracebackType
from typing import Any

NAME = "firkin_guest"  # this module's name over there
HEADER = struct.Struct("<BI")
MODULE, FUNCTION, CALL = 1, 2, 3  # from the host
STDOUT, STDERR = 1, 2  # from the guest: a piece of output
VALUE, PICKLED, ERROR = 3, 4, 5  # from the guest: the answer
MAX_PIECE = 65536
MAX_TEXT = 65536
DYNAMIC = "<dynamic-code>"  # what cloudpickle writes where a file's name was

# Values cross as MessagePack; what it lacks is an extension type of ours.
TUPLE, SET, FROZENSET, BIG_INT, COMPLEX, BYTEARRAY, SURROGATES = range(1, 8)
U32, I64, F64 = struct.Struct(">I"), struct.Struct(">q"), struct.Struct(">d")


class NotPlain(TypeError):
    """A value that is not made of plain data; `where` is the way to it, outermost last."""

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        self.where: list[str] = []

    def __str__(self) -> str:
        return f"result{''.join(reversed(self.where))} is a {self.kind}, which is not plain data"


def encode(value: object) -> bytes:
    """A value of plain data as MessagePack.

    Raises:
        NotPlain: there is something else in it. A subclass is something else: it would come back as its base.
    """
    out = bytearray()
    try:
        _put(out, value)
    except RecursionError:
        raise ValueError("result is nested too deeply, or contains itself") from None
    return bytes(out)


def _put(out: bytearray, value: Any) -> None:
    put = _PUT.get(type(value))
    if put is None:
        raise NotPlain(value)
    put(out, value)


def _put_sized(out: bytearray, tag: int, data: bytes) -> None:
    out.append(tag)
    out += U32.pack(len(data))
    out += data


def _put_extension(out: bytearray, code: int, data: bytes | bytearray) -> None:
    out.append(0xC9)
    out += U32.pack(len(data))
    out.append(code)
    out += data


def _put_int(out: bytearray, value: int) -> None:
    if -(2**63) <= value < 2**63:
        out.append(0xD3)
        out += I64.pack(value)
    else:
        _put_extension(out, BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _put_float(out: bytearray, value: float) -> None:
    out.append(0xCB)
    out += F64.pack(value)


def _put_str(out: bytearray, value: str) -> None:
    try:
        _put_sized(out, 0xDB, value.encode())
    except UnicodeEncodeError:
        _put_extension(out, SURROGATES, value.encode(errors="surrogatepass"))


def _put_list(out: bytearray, value: list[Any]) -> None:
    out.append(0xDD)
    out += U32.pack(len(value))
    for at, item in enumerate(value):
        try:
            _put(out, item)
        except NotPlain as error:
            error.where.append(f"[{at}]")
            raise


def _put_dict(out: bytearray, value: dict[Any, Any]) -> None:
    out.append(0xDF)
    out += U32.pack(len(value))
    for key, item in value.items():
        try:
            _put(out, key)
            _put(out, item)
        except NotPlain as error:
            error.where.append(f"[{key!r:.40}]")
            raise


def _put_list_as(code: int) -> Callable[[bytearray, Any], None]:
    def put(out: bytearray, value: Any) -> None:
        inner = bytearray()
        _put_list(inner, list(value))
        _put_extension(out, code, inner)

    return put


_PUT: dict[type, Callable[[bytearray, Any], None]] = {
    type(None): lambda out, _: out.append(0xC0),
    bool: lambda out, value: out.append(0xC3 if value else 0xC2),
    int: _put_int,
    float: _put_float,
    complex: lambda out, value: _put_extension(out, COMPLEX, F64.pack(value.real) + F64.pack(value.imag)),
    str: _put_str,
    bytes: lambda out, value: _put_sized(out, 0xC6, value),
    bytearray: lambda out, value: _put_extension(out, BYTEARRAY, value),
    list: _put_list,
    dict: _put_dict,
    tuple: _put_list_as(TUPLE),
    set: _put_list_as(SET),
    frozenset: _put_list_as(FROZENSET),
}


class Wire:
    """Frames over two descriptors."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in, self._out = fd_in, fd_out
        self._lock = threading.Lock()

    def read(self) -> tuple[int, bytes] | None:
        """The next frame; None when the host hung up."""
        header = self._take(HEADER.size)
        if header is None:
            return None
        kind, length = HEADER.unpack(header)
        payload = self._take(length)
        return None if payload is None else (kind, payload)

    def write(self, kind: int, payload: bytes) -> None:
        with self._lock:
            view = memoryview(HEADER.pack(kind, len(payload)) + payload)
            while view:
                view = view[os.write(self._out, view) :]

    def _take(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            piece = os.read(self._in, size - len(data))
            if not piece:
                return None
            data += piece
        return bytes(data)


class Capture:
    """Sends what this process and its children write to descriptors 1 and 2."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = threading.Lock()
        self._pipes: dict[int, int] = {}
        for fd in (STDOUT, STDERR):
            ours, theirs = os.pipe()
            os.dup2(theirs, fd)
            os.close(theirs)
            self._pipes[ours] = fd
        threading.Thread(target=self._pump, name="firkin-output", daemon=True).start()

    def flush(self) -> None:
        """Send what was written until now: one read takes all that a pipe can hold."""
        with self._lock:
            for pipe in select.select(list(self._pipes), [], [], 0)[0]:
                data = os.read(pipe, MAX_PIECE)
                if data:
                    self._wire.write(self._pipes[pipe], data)
                else:
                    del self._pipes[pipe]

    def _pump(self) -> None:
        while self._pipes:
            select.select(list(self._pipes), [], [])
            self.flush()


class Unpickler(pickle.Unpickler):
    """Reads what the host sends. Another `@firkin.function` among it runs right here."""

    def persistent_load(self, pid: Any) -> Any:
        return Local(pid)


class Local:
    """A function that is remote for the host, seen from inside of a guest."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.local = self.remote = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.local(*args, **kwargs)


class Runner:
    """Holds the function, and answers calls."""

    def __init__(self) -> None:
        self._function: Callable[..., Any] | None = None
        self._pickled = b""
        self._trusted = False
        self._file = DYNAMIC

    def take(self, payload: bytes) -> None:
        """A function to run from now on; unpickled at its first call, so that a failure is that call's answer."""
        self._pickled, self._trusted, self._file, line, source = marshal.loads(payload)
        self._function = None
        show_source(line, source)

    def answer(self, payload: bytes) -> tuple[int, bytes]:
        """Call the function; its value or its error as a frame."""
        try:
            if self._function is None:
                self._function = _load(self._pickled)
            args, kwargs = _load(payload)
            return self._encode(self._function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - the host raises it
            return ERROR, self._describe(error)

    def _encode(self, value: object) -> tuple[int, bytes]:
        return (PICKLED, _dump(value)) if self._trusted else (VALUE, encode(value))

    def _describe(self, error: BaseException) -> bytes:
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        pickled = None
        if self._trusted:
            try:
                pickled = _dump(error)
            except Exception:  # noqa: BLE001 - it goes as plain data then
                pickled = None
        try:
            arguments = encode(error.args)
        except Exception:  # noqa: BLE001 - its text goes instead
            arguments = encode(None)
        return encode([kind, arguments, _text(error)[:MAX_TEXT], self._trace(error), pickled])

    def _trace(self, error: BaseException) -> str:
        """The traceback without our own part of it; its end, where it is long."""
        import traceback

        error.__traceback__ = _beyond(error.__traceback__)
        text = "".join(traceback.format_exception(error)).replace(f'File "{DYNAMIC}"', f'File "{self._file}"')
        return text[-MAX_TEXT:].encode(errors="backslashreplace").decode()


def show_source(line: int, source: str) -> None:
    """Let tracebacks show the function's own lines, although its file is not here."""
    import linecache

    lines = ["\n"] * (line - 1) + source.splitlines(keepends=True)
    linecache.cache[DYNAMIC] = (len(source), None, lines, DYNAMIC)


def _beyond(at: TracebackType | None) -> TracebackType | None:
    while at is not None and at.tb_frame.f_code.co_filename == _load.__code__.co_filename:
        at = at.tb_next
    return at


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - user code
        return f"<str() failed: {type(other).__name__}>"


def _load(data: bytes) -> Any:
    return Unpickler(io.BytesIO(data)).load()


def _dump(value: object) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value))


def install(payload: bytes) -> None:
    """A module from the host."""
    modules: list[tuple[str, bool, CodeType]] = marshal.loads(payload)
    for name, is_package, code in modules:
        module = ModuleType(name)
        if is_package:
            module.__path__ = []
        module.__package__ = name if is_package else name.rpartition(".")[0]
        sys.modules[name] = module
        exec(code, module.__dict__)


def main() -> None:
    """Serve until the host hangs up."""
    wire = Wire(os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    capture, runner = Capture(wire), Runner()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    while (frame := wire.read()) is not None:
        kind, payload = frame
        if kind == MODULE:
            install(payload)
        elif kind == FUNCTION:
            runner.take(payload)
        else:
            answer = runner.answer(payload)
            _flush()
            capture.flush()
            wire.write(*answer)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed or replaced by the function
            continue
