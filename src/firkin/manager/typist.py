"""Type on a guest's serial console and wait for what it answers."""

from __future__ import annotations

import os
import re
import time

from firkin.errors import GuestError
from firkin.manager.machine import Machine
from firkin.vmm import console
from firkin.vmm.rotated import RotatedLog

POLL_S = 0.02
RETYPE_S = 5.0
WINDOW = 4096  # a hostile guest may flood its console; only its last words count


def type_and_wait(machine: Machine, text: str, pattern: str, *, timeout_s: float) -> str:
    """Write `text` to the console and answer what `pattern` then matches in its output.

    An empty `text` waits for what stands there already and presses return now and then, as a person does at a silent
    prompt.

    Raises:
        GuestError: nothing matched within `timeout_s` seconds.
    """
    wanted = re.compile(pattern)
    began = time.monotonic()
    recent = b""
    with RotatedLog(machine.console_log, back=0 if text else WINDOW) as log:
        _press(machine, text)
        pressed = began
        while time.monotonic() - began < timeout_s:
            recent = (recent + log.read_all())[-WINDOW:]
            if found := wanted.search(_plain(recent)):
                return found.group().strip()
            if not text and time.monotonic() - pressed > RETYPE_S:
                _press(machine, "\n")
                pressed = time.monotonic()
            time.sleep(POLL_S)
    raise GuestError(
        f"console: no {pattern!r} within {timeout_s:g} s; last: {_plain(recent)[-200:]!r}",
        hint=f"firkin logs {machine.name}",
    )


def _press(machine: Machine, text: str) -> None:
    fifo = os.open(machine.run_folder / console.INPUT, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fifo, text.encode())
    finally:
        os.close(fifo)


def _plain(data: bytes) -> str:
    """As a person reads it: without colours and returns."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace")).replace("\r", "")
