"""The serial port's output, if it is not our stdout: a file or named pipe, opened at the start."""

from __future__ import annotations

import os

from firkin.engine.faults import Area, Fault, os_text
from firkin.fcapi.serial import Serial

# A pipe is opened for reading too, so that it need not have a reader yet.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class SerialPort:
    """Where the guest's serial port shall go."""

    def __init__(self) -> None:
        self.config = Serial()
        self._output: int | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether it is on our own stdin and stdout."""
        return self.config.serial_out_path is None

    def put(self, config: Serial) -> None:
        self.close()
        self.config = config

    def open(self) -> None:
        """Open the output, made if it is missing. Raises: Fault."""
        path = self.config.serial_out_path
        if path is None or self._output is not None:
            return
        try:
            self._output = os.open(path, _FLAGS, 0o666)
        except OSError as error:
            raise Fault(f"Failed to open the serial output {path}: {os_text(error)}", Area.START) from error

    def take_output(self) -> int | None:
        """The open output, which is the caller's from now on; None for our own stdout."""
        output, self._output = self._output, None
        return output

    def close(self) -> None:
        if (output := self.take_output()) is not None:
            os.close(output)
