"""Custom CPU templates in files of their own. An emulated processor follows none; they need to be well-formed."""

from __future__ import annotations

from firkin.engine.faults import Area, Fault, os_text
from firkin.fcapi import codec
from firkin.fcapi.cpu import CpuConfig


def read(path: str) -> CpuConfig:
    """The template in a file of its own, as a config file may name one. Raises: Fault."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
            return codec.decode(file.read(), CpuConfig)
    except OSError as error:
        raise Fault(f"{os_text(error)} {path}", Area.CPU) from error
    except codec.Malformed as error:
        raise Fault(str(error), Area.CPU) from error
