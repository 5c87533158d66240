"""Texts with a syntax of their own: a function reads each, and gives it back or refuses it as Firecracker does."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_HEX = frozenset("0123456789abcdefABCDEF")
LEVELS = ("off", "trace", "debug", "info", "warn", "warning", "error")


def mac_address(text: str) -> str:
    """Six pairs of hexadecimal digits; given back in small letters, as GET /vm/config shows it."""
    pairs = text.split(":")
    if len(pairs) != 6 or any(len(pair) != 2 or not _HEX.issuperset(pair) for pair in pairs):
        raise ValueError("The provided MAC address is invalid.")
    return text.lower()


def ipv4_address(text: str) -> str:
    """Four numbers below 256, without leading zeros."""
    parts = text.split(".")
    good = all(part.isascii() and part.isdigit() and len(part) <= 3 and int(part) < 256 for part in parts)
    if len(parts) != 4 or not good or any(len(part) > 1 and part[0] == "0" for part in parts):
        raise ValueError("invalid IPv4 address syntax")
    return text


def log_level(text: str) -> str:
    """A level of the log, in any case."""
    if text.lower() not in LEVELS:
        raise ValueError("Invalid LevelFilter")
    return text


def template_u32(text: str) -> str:
    """`0x` or `0b` and the digits of 32 bits: a CPUID leaf, or the address of a model-specific register."""
    base = {"0b": 2, "0x": 16}.get(text[:2])
    if base is None:
        hint = "Make sure to prefix the number with '0x' for hexadecimal numbers or '0b' for binary numbers."
        raise ValueError(f"No supported number system prefix found in value [{text}]. {hint}")
    if (mistake := _u32_mistake(text[2:], base)) is not None:
        kind, _ = mistake
        what = f"Failed to parse string [{text}] as a number for CPU template"
        raise ValueError(f"{what} - ParseIntError {{ kind: {kind} }}")
    return text


def kvm_capability(text: str) -> str:
    """The number of a KVM capability, to be there; with a `!` before it, not to be needed."""
    if (mistake := _u32_mistake(text.removeprefix("!"), 10)) is not None:
        _, words = mistake
        raise ValueError(f"Failed to parse string [{text}] as a kvm capability - can not convert to numeric: {words}")
    return text


def cpuid_register(text: str) -> str:
    if text not in ("eax", "ebx", "ecx", "edx"):
        raise ValueError("Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]")
    return text


def bitmap(bits: int, text: str) -> str:
    """Bits to clear, to set and (x) to leave, with `_` between them as one likes."""
    digits = text.removeprefix("0b").encode()
    for count, digit in enumerate(byte for byte in reversed(digits) if byte != ord("_")):
        if digit not in b"01x":
            raise ValueError(f"Failed to parse string [{text}] as a bitmap - unknown character: {digit}")
        if count >= bits:
            raise ValueError(f"Failed to parse string [{text}] as a bitmap - string is too long")
    return text


def _u32_mistake(digits: str, base: int) -> tuple[str, str] | None:
    """What Rust finds wrong: the name of the mistake, and its words."""
    body = digits.removeprefix("+")
    if not digits:
        return "Empty", "cannot parse integer from empty string"
    if not body or not all(char in _HEX and int(char, 16) < base for char in body):
        return "InvalidDigit", "invalid digit found in string"
    if int(body, base) >= 2**32:
        return "PosOverflow", "number too large to fit in target type"
    return None


MacAddress = Annotated[str, Meta(extra={"parse": mac_address})]
Ipv4Address = Annotated[str, Meta(extra={"parse": ipv4_address, "expected": "IPv4 address"})]
LogLevel = Annotated[str, Meta(extra={"parse": log_level})]
TemplateU32 = Annotated[str, Meta(extra={"parse": template_u32})]
KvmCapability = Annotated[str, Meta(extra={"parse": kvm_capability})]
RegisterName = Annotated[str, Meta(extra={"parse": cpuid_register})]
Bitmap32 = Annotated[str, Meta(extra={"parse": lambda text: bitmap(32, text)})]
Bitmap64 = Annotated[str, Meta(extra={"parse": lambda text: bitmap(64, text)})]
