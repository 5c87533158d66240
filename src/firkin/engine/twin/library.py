"""The library that is loaded into QEMU (twin/ in the source tree), and what QEMU's environment tells it."""

from __future__ import annotations

import os

from firkin.engine.twin.record import Numbers
from firkin.errors import EngineError

PATH = os.path.join(os.path.dirname(os.path.dirname(__file__)), "firkin-twin")  # noqa: PTH118, PTH120 - start-up


class Library:
    """Open for a QEMU that may be another user and have another root: it finds the file by its number."""

    def __init__(self) -> None:
        """Raises: EngineError, if it was not built."""
        try:
            self.fd = os.open(PATH, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise EngineError(f"cannot read {PATH}: {error.strerror}", hint="make -C twin") from error

    def environment(self, numbers: Numbers) -> dict[str, str]:
        """QEMU's share of it: its control socket, and that on which it asks of devices that the engine serves."""
        return {
            "LD_PRELOAD": f"/proc/self/fd/{self.fd}",
            **({"FIRKIN_TWIN": str(numbers.control)} if numbers.control >= 0 else {}),
            **({"FIRKIN_CALLS": " ".join(map(str, (numbers.calls, *numbers.devices)))} if numbers.calls >= 0 else {}),
        }

    def close(self) -> None:
        os.close(self.fd)
