"""nftables in its JSON form (libnftables-json(5)), one transaction per call, in the namespace of the calling thread.

libnftables in this process takes a tenth of a millisecond where the `nft` program takes fourteen; the program is the
fallback.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from firkin.errors import HostError, ProgramFailed

if TYPE_CHECKING:
    import ctypes

LIBRARY = "libnftables.so.1"
OUTPUT_JSON = 1 << 4  # nftables/libnftables.h: JSON out, and JSON expected in

Command = dict[str, Any]


class RulesRefused(HostError):
    """nftables did not accept a transaction; nothing of it took effect."""


def apply(commands: list[Command]) -> None:
    """Carry out all of the commands or none.

    Raises:
        RulesRefused: with nftables' own words.
        ProgramMissing: neither the library nor the program is installed.
    """
    _run(json.dumps({"nftables": commands}))


def ruleset() -> list[Command]:
    """All tables, chains, rules, sets of this namespace, without the header."""
    answer = _run(json.dumps({"nftables": [{"list": {"ruleset": None}}]}))
    return [entry for entry in json.loads(answer)["nftables"] if "metainfo" not in entry]


def tables() -> set[tuple[str, str]]:
    """Family and name of every table."""
    answer = _run(json.dumps({"nftables": [{"list": {"tables": None}}]}))
    found = [entry["table"] for entry in json.loads(answer)["nftables"] if "table" in entry]
    return {(table["family"], table["name"]) for table in found}


def _run(text: str) -> str:
    library = _library()
    return _by_program(text) if library is None else _by_library(library, text)


@cache
def _library() -> ctypes.CDLL | None:
    import ctypes

    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    return library


def _by_library(library: ctypes.CDLL, text: str) -> str:
    # A context keeps a socket, and the socket the namespace it was opened in: never reuse one.
    context = library.nft_ctx_new(0)
    try:
        library.nft_ctx_output_set_flags(context, OUTPUT_JSON)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, text.encode()) != 0:
            raise _refused(library.nft_ctx_get_error_buffer(context).decode(errors="replace"))
        output: bytes = library.nft_ctx_get_output_buffer(context)
        return output.decode()
    finally:
        library.nft_ctx_free(context)


def _by_program(text: str) -> str:
    from firkin.host.run import run

    try:
        return run("nft", "-j", "-f", "-", input=text).stdout
    except ProgramFailed as error:
        raise _refused(error.output) from error


def _refused(words: str) -> RulesRefused:
    lines = [line for line in words.splitlines() if "rror" in line] or [words.strip() or "no reason given"]
    denied = "Operation not permitted" in words
    hint = "run as root" if denied else "sudo modprobe -a nf_tables nft_masq nft_ct nf_conntrack_bridge"
    return RulesRefused(f"nftables: {lines[0]}", hint=hint)
