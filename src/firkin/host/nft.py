"""nftables by libnftables, in JSON (libnftables-json(5)): 0.1 ms a transaction where starting `nft` takes 14."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from firkin.errors import HostError
from firkin.host.run import run

OUTPUT_JSON = 1 << 4


def apply(commands: list[dict[str, Any]]) -> None:
    """Carry out all commands in one transaction, in the namespace of the calling thread.

    Raises:
        HostError: nftables refused, with its reason; nothing was changed.
    """
    document = json.dumps({"nftables": commands})
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError:
        run("nft", "-j", "-f", "-", input=document)
        return
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_output_set_flags(context, OUTPUT_JSON)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_buffer_output(context)
        if library.nft_run_cmd_from_buffer(context, document.encode()) != 0:
            reason = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").strip()
            raise HostError(
                f"nftables refused a rule set: {reason}", hint="sudo modprobe nf_tables; sudo nft list ruleset"
            )
    finally:
        library.nft_ctx_free(context)
