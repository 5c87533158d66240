"""What goes wrong, in the jailer's own words: each error is printed twice, for people and as Rust would debug it."""

from __future__ import annotations

import os

from firkin.errors import FirkinError, KernelRefused

# The jailer is linked with musl, whose words differ from glibc's here.
_MUSL = {12: "Out of memory", 16: "Resource busy", 24: "No file descriptors available", 98: "Address in use"}
# Rust's std::io::ErrorKind by errno; the rest is Uncategorized.
_KINDS = {
    1: "PermissionDenied",
    2: "NotFound",
    4: "Interrupted",
    7: "ArgumentListTooLong",
    11: "WouldBlock",
    12: "OutOfMemory",
    13: "PermissionDenied",
    16: "ResourceBusy",
    17: "AlreadyExists",
    18: "CrossesDevices",
    20: "NotADirectory",
    21: "IsADirectory",
    22: "InvalidInput",
    26: "ExecutableFileBusy",
    27: "FileTooLarge",
    28: "StorageFull",
    30: "ReadOnlyFilesystem",
    31: "TooManyLinks",
    36: "InvalidFilename",
    38: "Unsupported",
    39: "DirectoryNotEmpty",
    40: "FilesystemLoop",
    122: "QuotaExceeded",
}


class JailerError(FirkinError):
    """The jail cannot be had. `debug` is the second line on stderr: the variant and what it holds."""

    def __init__(self, variant: str, text: str, *held: str | int | OSError | KernelRefused | Debug) -> None:
        super().__init__(text)
        self.debug = f"{variant}({', '.join(_debug(value) for value in held)})" if held else variant


class Debug(str):
    """Text that is Rust's debug form already."""

    __slots__ = ()


def os_text(error: OSError | KernelRefused) -> str:
    """`No such file or directory (os error 2)`."""
    number = error.errno or 0
    return f"{_words(number)} (os error {number})"


def with_path(variant: str, text: str, path: str, error: OSError | KernelRefused) -> JailerError:
    """The most common shape: what failed, on which path, and why."""
    return JailerError(variant, f"{text} {path}: {os_text(error)}", path, error)


def _debug(value: str | int | OSError | KernelRefused | Debug) -> str:
    if isinstance(value, OSError | KernelRefused):
        number = value.errno or 0
        kind = _KINDS.get(number, "Uncategorized")
        return f'Os {{ code: {number}, kind: {kind}, message: "{_words(number)}" }}'
    if isinstance(value, int | Debug):
        return str(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _words(number: int) -> str:
    return _MUSL.get(number, os.strerror(number))
