"""Custom CPU templates: only whether they are well-formed, since an emulated processor follows none."""

from __future__ import annotations

from firkin.engine.faults import Area, Fault, os_text
from firkin.fcapi import codec
from firkin.fcapi.cpu import CpuConfig

_REGISTERS = ("eax", "ebx", "ecx", "edx")
_BASES = {"0b": 2, "0x": 16}
_DESERIALIZING = "An error occurred when deserializing the json body of a request: "


def check(config: CpuConfig) -> None:
    """Raises: Fault, for what is no number, register or bitmap."""
    try:
        for leaf in config.cpuid_modifiers:
            _number(leaf.leaf)
            _number(leaf.subleaf)
            for modifier in leaf.modifiers:
                _register(modifier.register)
                _bitmap(modifier.bitmap)
        for msr in config.msr_modifiers:
            _number(msr.addr)
            _bitmap(msr.bitmap)
    except ValueError as error:
        raise Fault(f"{_DESERIALIZING}{error}.") from error


def read(path: str) -> CpuConfig:
    """The template in a file of its own, as a config file may name one. Raises: Fault."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
            return codec.decode(file.read(), CpuConfig)
    except OSError as error:
        raise Fault(f"{os_text(error)} {path}", Area.CPU) from error
    except codec.Malformed as error:
        raise Fault(str(error), Area.CPU) from error


def _register(name: str) -> None:
    if name not in _REGISTERS:
        raise ValueError("Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]")


def _number(text: str) -> None:
    base = _BASES.get(text[:2])
    if base is None:
        raise ValueError(
            f"No supported number system prefix found in value [{text}]. Make sure to prefix the number with '0x' for "
            "hexadecimal numbers or '0b' for binary numbers."
        )
    kind = _number_fault(text[2:], base)
    if kind:
        failed = f"Failed to parse string [{text}] as a number for CPU template"
        raise ValueError(f"{failed} - ParseIntError {{ kind: {kind} }}")


def _number_fault(digits: str, base: int) -> str:
    """Rust's name for what is wrong, nothing if it is a number."""
    if not digits:
        return "Empty"
    known = "0123456789abcdef"[:base]
    digits = digits.removeprefix("+").lower()
    if not digits or any(digit not in known for digit in digits):
        return "InvalidDigit"
    return "PosOverflow" if int(digits, base) >= 1 << 32 else ""


def _bitmap(text: str) -> None:
    for mark in reversed(text.removeprefix("0b").encode()):
        if mark not in b"01x_":
            raise ValueError(f"Failed to parse string [{text}] as a bitmap - unknown character: {mark}")
