"""What firkin-init said on the console of a machine's end: its entrypoint's exit code, or what kept it from booting.

The console is the guest's own word: it tells a user what the program did, and nothing may depend on it. Pure.
"""

from __future__ import annotations

import re

_EXIT = re.compile(r"firkin-init: entrypoint .+ (exited with|was killed by signal) (\d{1,3}): the machine ends")
_COMPLAINT = re.compile(r"firkin-init: ((?!agent |entrypoint .*: the machine ends).+)")


def exit_code(console: str) -> int | None:
    """The entrypoint's, as a shell counts: 128 and the number of the signal that killed it. None: it did not end."""
    found = _EXIT.findall(console)
    if not found:
        return None
    how, number = found[-1]
    return int(number) + (128 if how.endswith("signal") else 0)


def complaint(console: str) -> str:
    """The last thing that went wrong at boot; empty when nothing was said."""
    found = _COMPLAINT.findall(console)
    return found[-1].rstrip() if found else ""
