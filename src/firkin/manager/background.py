"""Work that outlives the command that asked for it: processes on the same home, whose logs say why they failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from firkin.errors import FirkinError
from firkin.host import process
from firkin.manager.context import Context
from firkin.settings import Settings


def start(context: Context, module: str, *words: str, log: Path) -> None:
    """Run a module of ours in the background, isolated from the user's environment."""
    settings = msgspec.json.encode(context.settings, enc_hook=str).decode()
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", module, *words, settings],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", start_new_session=True,
        )  # fmt: skip
    process.let_go(child)


def settings() -> Settings:
    """Those of whoever started this process."""
    return msgspec.json.decode(sys.argv[-1], type=Settings, dec_hook=lambda kind, value: kind(value))


def last_words(error: FirkinError) -> str:
    """An error as the log has it."""
    return f"error: {error}\nhint: {error.hint}" if error.hint else f"error: {error}"
